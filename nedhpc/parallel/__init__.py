"""Communicator helpers, placement, timing."""
