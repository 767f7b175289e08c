"""The LLDB plugin: `command script import lldb_ipbp`, then `hotpatch`."""
