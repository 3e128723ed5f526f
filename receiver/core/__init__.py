"""What everything may use; asks no other machine."""
