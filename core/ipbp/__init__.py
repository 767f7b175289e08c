"""ipbp: in-place binary patching of a running native program from inside its debugger."""

__version__ = "0.1.0"
