"""Tests of receiver/sync."""
