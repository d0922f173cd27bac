"""Energy, metric, and the flow of the parameters."""
