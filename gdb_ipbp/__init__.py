"""The GDB plugin: `source gdb_ipbp.py`, then `hotpatch`."""
