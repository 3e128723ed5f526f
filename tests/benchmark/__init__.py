"""How fast it is, against the plan done literally: `python -m tests.benchmark`."""
