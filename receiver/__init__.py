"""Keeps Hikvision face terminals in step with HR."""

__version__ = "0.1.0"
