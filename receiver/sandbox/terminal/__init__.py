"""A simulated Hikvision face terminal."""
