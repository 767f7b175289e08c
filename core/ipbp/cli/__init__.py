"""The `ipbp` command."""
