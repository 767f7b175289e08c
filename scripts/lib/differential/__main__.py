"""The command: `scripts/differential`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from reliability import write_section

from differential.campaign import Campaign, summary
from differential.case import TOOL, WRONG
from differential.options import HOSTS, LEVELS, choose
from differential.reduce import Reduction
from differential.report import read, section


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/differential", description="Look for wrong patches.")
    parser.add_argument("--count", type=int, default=100, help="edits (100)")
    parser.add_argument("--seed", type=int, help="of the first program, the next has the next (from today's date)")
    parser.add_argument("--edits", type=int, default=8, help="of each program, one after the other (8)")
    parser.add_argument("--seconds", type=float, help="begin no edit after that; cvise ends then (half an hour)")
    parser.add_argument("--language", choices=("c", "cxx", "rust", "csmith"))
    parser.add_argument("--compiler", choices=("gcc", "clang", "rustc"))
    parser.add_argument("--optimise", choices=LEVELS, metavar="LEVEL", help="-O0, -O1, -O2, -O3 or -Os")
    parser.add_argument(
        "--debugger",
        choices=HOSTS,
        help="core: by ptrace(2); qemu: for AArch64, by gdb and qemu-user; wine: for Windows; idle: patches nothing",
    )
    parser.add_argument("--pie", action=argparse.BooleanOptionalAction)
    parser.add_argument("--library", action=argparse.BooleanOptionalAction, help="the second file is a shared library")
    parser.add_argument("--flags", help="what it is built with besides; lines of the profile for Rust")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--log", type=Path, help="JSON lines; a run with the same log goes on with it")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "ipbp-wrong", metavar="DIR")
    parser.add_argument("--reduce", type=int, metavar="SEED", help="make what is wrong with this program small")
    parser.add_argument("--report", type=Path, nargs="+", metavar="LOG", help="write docs/reliability.md's section")
    arguments = parser.parse_args(_joined(sys.argv[1:]))
    if arguments.report:
        write_section("differential", section(read(arguments.report), _commands(arguments.report)))
        return 0
    if arguments.reduce is not None:
        return _reduced(arguments)
    seed = arguments.seed if arguments.seed is not None else of_today()
    campaign = Campaign(
        seed,
        arguments.count,
        arguments.edits,
        arguments.jobs,
        _given(arguments),
        arguments.keep,
        arguments.log,
        arguments.seconds,
    )
    if arguments.log is not None:
        arguments.log.with_suffix(".command").write_text(_told(sys.argv[1:]))
    print(f"seed {seed}", flush=True)
    records = campaign.run()
    print("\n".join(summary(records)))
    wrong = [row for row in records if row["outcome"] == WRONG]
    for row in wrong:
        print(f"WRONG seed {row['seed']} step {row['step']}, kept in {arguments.keep}/{row['seed']}-{row['step']}")
    return 1 if wrong else 2 if any(row["outcome"] == TOOL for row in records) else 0


def _reduced(arguments: argparse.Namespace) -> int:
    seed: int = arguments.reduce
    folder = arguments.keep / f"{seed}-reduced"
    if not Reduction(seed, choose(seed, _given(arguments)), arguments.edits, folder, arguments.seconds or 1800).run():
        print(f"seed {seed}: nothing is wrong")
        return 0
    print(f"seed {seed}: {folder}")
    return 1


def _told(words: Sequence[str]) -> str:
    """The command without what says where its files are."""
    pairs = zip(["", *words], words, strict=False)
    kept = [word for before, word in pairs if not {before, word} & {"--log", "--keep"}]
    return " ".join(["scripts/differential", *kept])


def _commands(logs: Sequence[Path]) -> list[str]:
    told = [log.with_suffix(".command") for log in logs]
    return [path.read_text().strip() for path in told if path.exists()]


def of_today() -> int:
    """A seed that is another one each day (UTC), with room for a day's programs behind it."""
    return int(datetime.now(UTC).strftime("%Y%m%d")) * 1_000_000


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    names = {
        "language": "language",
        "compiler": "compiler",
        "optimise": "level",
        "debugger": "debugger",
        "pie": "pie",
        "library": "library",
    }
    found = {key: getattr(arguments, name) for name, key in names.items()}
    if arguments.flags is not None:
        found["flags"] = tuple(filter(None, [arguments.flags]))
    return {key: value for key, value in found.items() if value is not None}


def _joined(words: list[str]) -> list[str]:
    # argparse takes "-O2" for an option of its own.
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--optimise", "--flags"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


if __name__ == "__main__":
    sys.exit(main())
