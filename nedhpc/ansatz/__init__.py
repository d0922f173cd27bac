"""u(x; theta) as a chain of layers that push jets."""
