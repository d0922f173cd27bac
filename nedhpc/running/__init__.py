"""The run from its start to its end. (The name `run` is that of the function nedhpc.run.)"""
