"""Tests of receiver/web."""
