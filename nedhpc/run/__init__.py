"""The run from its start to its end."""
