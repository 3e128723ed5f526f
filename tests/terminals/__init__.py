"""Tests of receiver/terminals."""
