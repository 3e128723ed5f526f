"""Tests of receiver/on_demand."""
