"""What all tests share: folders of their own for ipbp's files, and the debuggers and compilers that are installed."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator

import pytest

from ipbp.cli.debuggers import find_debugger


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slice", metavar="SEED", help="of each live test one or two variants, others with another SEED")


def pytest_report_header(config: pytest.Config) -> str:
    return f"slice: {config.getoption('--slice') or 'none'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs have two hours each, all else what pyproject.toml gives: a test that hangs fails."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(7200))
    if seed := config.getoption("--slice"):
        left_out = _left_out(items, seed)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))


def _left_out(items: list[pytest.Item], seed: str) -> set[pytest.Item]:
    """What a slice does without: of each live test all variants but two, of which one is for each debugger.

    Of tests that `compiles` marks one stays.
    """
    variants: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.path.parent.name == "live" and not item.get_closest_marker("slow"):
            variants[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for name, every in variants.items():
        drawn = random.Random(f"{seed} {name}").sample(every, len(every))
        if every[0].get_closest_marker("compiles"):
            left_out.update(drawn[1:])
            continue
        drawn.sort(key=lambda item: "lldb" in item.name)
        left_out.update(drawn[1:-1])
    return left_out


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Journals, caches and configuration go to a temporary folder, never to the user's."""
    root = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            folder = root / name.lower()
            folder.mkdir(mode=0o700)
            patch.setenv(name, str(folder))
        yield


@pytest.fixture(scope="session")
def gdb() -> str:
    """Path of a gdb with Python. scripts/setup installs one, so there is no skip."""
    return find_debugger("gdb")


@pytest.fixture(scope="session")
def lldb() -> str:
    """Path of an lldb with Python. scripts/setup installs one, so there is no skip."""
    return find_debugger("lldb")


@pytest.fixture(scope="session")
def gcc() -> str:
    return _tool("gcc")


@pytest.fixture(scope="session")
def clang() -> str:
    """`clang`, or the newest with its version in the name: Debian installs both kinds."""
    return _tool("clang", *(f"clang-{version}" for version in range(25, 13, -1)))


@pytest.fixture(scope="session")
def aarch64() -> str:
    """gcc for AArch64; the binutils of the same prefix come with it."""
    return _tool("aarch64-linux-gnu-gcc")


def _tool(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise FileNotFoundError(f"none of {', '.join(names)} on {os.environ.get('PATH')}; run scripts/setup")
