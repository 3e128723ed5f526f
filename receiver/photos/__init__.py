"""A photo fetched from where it is allowed, and made fit for a terminal."""
