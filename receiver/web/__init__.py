"""The HTTP API: webhook, buttons, reports."""
