"""What of a cargo profile decides whether a program can be patched, by the options that cargo gives rustc.

LTO over crates leaves the libraries without machine code and makes one body of code of all of them. ThinLTO between the
codegen units of one crate, which is what a release profile does by itself, needs no option.
"""

from __future__ import annotations

from collections.abc import Iterable

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.rustc_recorder import read_options
from ipbp.errors import Refusal

_OFF = ("off", "no", "n", "false", "thin-local")


def refuse_lto(commands: Iterable[CrateCommand]) -> list[Refusal]:
    """`lto` for a program whose crates are optimised as one."""
    found = []
    for row in commands:
        options = read_options(list(row.arguments))
        kind = options.get("-C lto", ["off"])[-1]
        plugin = options.get("-C linker-plugin-lto", ["off"])[-1] not in _OFF
        if row.is_image and row.is_linked and (kind not in _OFF or plugin):
            setting = "-C linker-plugin-lto" if kind in _OFF else f'lto = "{"thin" if kind == "thin" else "fat"}"'
            found.append(_lto(row, setting))
    return found


def _lto(row: CrateCommand, setting: str) -> Refusal:
    return Refusal(
        "lto",
        f"{row.given_name or row.name} was built with `{setting}`, which makes one body of code of all crates, so that "
        "none of them can be compiled alone",
        "Leave `lto` out of the profile (ThinLTO within each crate stays), and build and start the program once more.",
        row.name,
        row.source,
    )
