"""Tests of receiver/photos."""
