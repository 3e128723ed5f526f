"""Tests of receiver/check."""
