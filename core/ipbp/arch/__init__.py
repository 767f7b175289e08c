"""Machines: edge kinds with widths and ranges, entry and stub encodings, disassembly."""
