"""The file to load: `source /path/to/gdb_ipbp/gdb_ipbp.py`. It adds the command `hotpatch` to gdb.

gdb's Python is not the one that ipbp is installed in. Its folder must not get on sys.path: a compiled package for
another version of Python would be found there, and crash gdb. So our packages, which are plain Python, are loaded
from where this file is, by path. Loading once more takes the files as they are now.
"""

import importlib.util
import os
import sys


def load_packages(plugin: str) -> None:
    """Load `ipbp` and `gdb_ipbp`. `plugin`: folder of the latter; the former is beside it, or under `core`."""
    root = os.path.dirname(plugin)
    places = [os.path.join(root, "ipbp"), os.path.join(root, "core", "ipbp")]
    core = next((place for place in places if os.path.isdir(os.path.join(place, "host"))), None)
    if core is None:
        raise ImportError(f"ipbp is neither in {places[0]} nor in {places[1]}: reinstall it")
    for name in [name for name in sys.modules if name.split(".")[0] in ("ipbp", "gdb_ipbp")]:
        del sys.modules[name]
    for name, folder in (("ipbp", core), ("gdb_ipbp", plugin)):
        file = os.path.join(folder, "__init__.py")
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[folder])
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


if __name__ == "__main__":  # how gdb runs what it sources
    # Not __file__: when one sourced file sources another, that is still the outer one's.
    load_packages(os.path.dirname(os.path.realpath(load_packages.__code__.co_filename)))

    from gdb_ipbp.command import Hotpatch

    Hotpatch()
