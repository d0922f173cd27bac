"""The run from its start to its end. The name `run` is already that of the function nedhpc.run."""
