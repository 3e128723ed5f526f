"""What people ask for: runs, drift, status."""
