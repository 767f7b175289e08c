"""Which settings of a cargo project name programs to run, other than the user's own toolchain.

A repository that was just cloned may have a `.cargo/config.toml` or a `rust-toolchain.toml`, and cargo obeys both
(Cargo book, "Configuration"; rustup book, "Overrides"). Compiling with the user's own rustc is what was asked for
by typing `hotpatch`. A compiler, a wrapper or a toolchain of the project's, or options that load a library into the
compiler, are not: `trust` asks.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PROGRAMS = ("rustc", "rustc-wrapper", "rustc-workspace-wrapper")
_LOADING = ("plugin", "backend", "llvm-args", "@")
"""In rustc's options: a pass plugin, a code generator, options of LLVM's, which may load one, options out of a file."""


def unusual_settings(root: Path) -> dict[str, str]:
    """A line to show for each setting that could start another program, with the file that it stands in. What cannot
    be read as TOML counts as such."""
    found: dict[str, str] = {}
    home = Path(os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"))
    for folder in (root, *root.parents):
        for name in ("config", "config.toml"):
            path = folder / ".cargo" / name
            if path.parent != home and path.is_file():
                found.update({f"{path}: {line}": str(path) for line in _of_config(path)})
        for name in ("rust-toolchain", "rust-toolchain.toml"):
            path = folder / name
            if path.is_file():
                found.update({f"{path}: {line}": str(path) for line in _of_toolchain(path)})
    return found


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _of_config(path: Path) -> Iterator[str]:
    """Linkers and runners do not count: ipbp links nothing and starts nothing."""
    rows = _read(path)
    if rows is None:
        yield "cannot be read"
        return
    build, targets = rows.get("build", {}), rows.get("target", {})
    yield from (f"{name} = {rows[name]!r}" for name in ("include", "env") if name in rows)
    yield from (f"build.{name} = {build[name]!r}" for name in _PROGRAMS if name in build)
    for name, table in (("build", build), *((f"target.{name}", table) for name, table in targets.items())):
        flags = table.get("rustflags", ()) if isinstance(table, dict) else ()
        if any(mark in str(flags) for mark in _LOADING):
            yield f"{name}.rustflags = {flags!r}"


def _of_toolchain(path: Path) -> Iterator[str]:
    rows = _read(path)
    table = rows.get("toolchain") if rows is not None else None
    if isinstance(table, dict) and "path" in table:
        yield f"toolchain.path = {table['path']!r}"
    elif rows is None and "/" in path.read_text(errors="replace"):
        yield "cannot be read"  # the short form is a channel's name alone
