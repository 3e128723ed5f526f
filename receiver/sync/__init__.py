"""Brings a terminal to where HR says it should be."""
