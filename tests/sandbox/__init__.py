"""Tests of receiver/sandbox."""
