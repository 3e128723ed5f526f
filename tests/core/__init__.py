"""Tests of receiver/core."""
