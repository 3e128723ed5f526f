"""Keeps Hikvision face terminals in step with HR."""
