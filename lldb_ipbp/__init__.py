"""The LLDB plugin: `command script import /path/to/lldb_ipbp`. It adds the command `hotpatch` to lldb.

lldb's Python is not the one that ipbp is installed in. Its folder must not stay on sys.path, where lldb puts it: a
compiled package for another version of Python would be found there, and crash lldb. So our packages, which are plain
Python, are loaded from where this file is, by path. Importing once more takes the files as they are now.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any


def __lldb_init_module(debugger: Any, session: dict[str, Any]) -> None:
    """Called by lldb after each import."""
    plugin = os.path.dirname(os.path.realpath(__file__))
    # lldb has put it second, behind its own folder. Elsewhere it is the user's own doing.
    for folder in (os.path.dirname(__file__), os.path.dirname(plugin)):
        if sys.path[1:2] == [folder]:
            del sys.path[1]
    load_core(plugin)
    from lldb_ipbp.command import add_command

    add_command(debugger)


def load_core(plugin: str) -> None:
    """Load `ipbp`, which is beside the folder `plugin`, or under `core` there; forget what was loaded before."""
    root = os.path.dirname(plugin)
    places = [os.path.join(root, "ipbp"), os.path.join(root, "core", "ipbp")]
    core = next((place for place in places if os.path.isdir(os.path.join(place, "host"))), None)
    if core is None:
        raise ImportError(f"ipbp is neither in {places[0]} nor in {places[1]}: reinstall it")
    for name in list(sys.modules):
        if name.split(".")[0] == "ipbp" or name.startswith("lldb_ipbp."):
            del sys.modules[name]
    file = os.path.join(core, "__init__.py")
    spec = importlib.util.spec_from_file_location("ipbp", file, submodule_search_locations=[core])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["ipbp"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["ipbp"])
