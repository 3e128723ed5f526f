"""What everything may use; does no I/O but the log."""
