"""The HTTP face: webhook, buttons, reports."""
