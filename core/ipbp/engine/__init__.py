"""The engine: the process that thinks."""
