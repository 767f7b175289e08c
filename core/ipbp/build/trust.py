"""What a project asks ipbp to run, and the user's word on it.

A repository that was just cloned names commands: the compilers in its compilation database, the build command in its
ipbp.toml. Starting a well-known compiler on a source is what the user asked for by typing `hotpatch`. Anything that
could start another program is not: a compiler of an unknown name or inside the project, a plugin, a specs file, a
program prefix, a wrapper, a variable in the environment. For these the user is asked once. The answer is
remembered by the hash of what was shown and of the content of every file that it names, so that a change asks again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipbp.build.command import LAUNCHERS, Command, split_compiler
from ipbp.build.config import OwnBuild
from ipbp.build.options import Argument, arguments_of, expanded
from ipbp.build.places import state_folder
from ipbp.build.snapshot import digest_of
from ipbp.errors import AgreementNeeded, IpbpError
from ipbp.host.private import is_ours, write_private

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the user has to agree to before anything is run: `text` to be shown, `hash` to be agreed to."""

    text: str
    hash: str


def needs_agreement(
    commands: Iterable[Command], own: OwnBuild | None = None, settings: Mapping[str, str] = _NOTHING
) -> Agreement | None:
    """What of these commands has to be agreed to, or None: nothing has, or it was agreed to before. `settings`: lines
    to show, with the file that each was found in."""
    # Line -> digest of the file that it names.
    shown = {line: digest_of(file) for line, file in settings.items()}
    if own is not None:
        shown[f"{own.directory}: {shlex.join(own.command)}"] = digest_of(str(own.file))
    is_of_the_system = functools.cache(_is_of_the_system)  # many units, few compilers
    for command in commands:
        for reason, file in _unusual(command, is_of_the_system):
            if reason not in shown:
                shown[reason] = digest_of(file) if file else ""
    if not shown:
        return None
    key = "\0".join(f"{line}\0{digest}" for line, digest in sorted(shown.items()))
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()
    if is_agreed(digest):
        return None
    lines = "\n".join(f"  {_visible(line)}" for line in shown)
    return Agreement(f"This project wants to run programs of its own to build:\n{lines}\n", digest)


def require_agreement(
    commands: Iterable[Command], own: OwnBuild | None = None, settings: Mapping[str, str] = _NOTHING
) -> None:
    """Raise `AgreementNeeded` with the text to show, unless the user has agreed to all of it."""
    agreement = needs_agreement(commands, own, settings)
    if agreement is not None:
        raise AgreementNeeded(agreement.text, agreement.hash)


def agree(hash: str, text: str = "") -> None:
    """Remember that the user agreed to what this hash stands for; `text` is what was shown. `agreement-unknown` for
    what is no such hash."""
    write_private(_place(hash), text)


def is_agreed(hash: str) -> bool:
    """A file of somebody else's is no answer of the user's."""
    try:
        return is_ours(os.lstat(_place(hash)))
    except FileNotFoundError:
        return False


def agreed() -> dict[str, str]:
    """Everything that the user agreed to: the hash, and what was shown, as far as it was kept."""
    found = sorted(path for path in state_folder("trusted").iterdir() if _HASH.fullmatch(path.name))
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in found}


def disagree(hash: str) -> None:
    """Ask again the next time. `agreement-unknown` when it was not agreed to."""
    try:
        _place(hash).unlink()
    except FileNotFoundError:
        raise _unknown(hash) from None


_HASH = re.compile(r"[0-9a-f]{64}")


def _place(hash: str) -> Path:
    if not _HASH.fullmatch(hash):
        raise _unknown(hash)
    return state_folder("trusted") / hash


def _unknown(hash: str) -> IpbpError:
    return IpbpError(
        "agreement-unknown",
        f"{hash!r} is nothing that could be agreed to",
        "Copy the hash from the message of `hotpatch`; `ipbp trust` lists what was agreed to.",
    )


_COMPILER = re.compile(r"([a-z0-9_]+-){0,4}(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(-[0-9]+(\.[0-9]+)*)?\Z")
_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib/", "/opt/", "/nix/store/", "/gnu/store/", "/snap/")
# Options that make a compiler start or load another program, or read its options otherwise than `options` does (GCC
# manual, "Overall Options" and "Directory Options"; clang's Options.td). They count wherever they stand, since many
# options hand the next word on.
_LOADING = re.compile(
    r"--?(fplugin|fpass-plugin|load|plugin|add-plugin|iplugindir|specs|wrapper|config|fmodule-mapper|driver-mode"
    r"|rsp-quoting|cc1|ccc-|gcc-toolchain|gcc-install-dir|gcc-triple|ptxas-path|cuda-path|rocm-path|offload)"
    r"|--prefix|-B(?!symbolic|static|dynamic)"
)
# Options of the compiler's inner programs; they could name a file to write as well.
_INNER = frozenset({"-Xclang", "-mllvm", "-Xassembler", "-Xpreprocessor"})
_HARMLESS_INNER = re.compile(
    r"-[DUI]|-M(D|MD|F|T|Q|P)\Z|-(disable-llvm-passes|disable-O0-optnone)\Z|--noexecstack\Z|[^-@]"
    r"|-(include|include-pch|fno-pch-timestamp)\Z"
)
_HARMLESS_VARIABLE = re.compile(
    r"(LANG|LANGUAGE|LC_[A-Z]+|TZ|TERM|SOURCE_DATE_EPOCH|GCC_COLORS|NO_COLOR|ZERO_AR_DATE)\Z"
)


def _unusual(command: Command, is_of_the_system: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """Each reason to ask, as the line to show, with the file whose content belongs to it ("" for none)."""
    if command.refusal is not None:
        return  # it is never run
    directory = str(command.directory)
    program, rest = split_compiler(command)
    for word in program:
        known = word in LAUNCHERS or os.path.basename(word) in LAUNCHERS or _COMPILER.match(os.path.basename(word))
        if not known or not is_of_the_system(word):
            yield f"{directory}: the compiler {word}", os.path.join(directory, word) if "/" in word else ""
    for name, value in command.environment:
        if not _HARMLESS_VARIABLE.match(name):
            yield f"with {name}={value} in the environment", ""
    for word in rest:
        if word.startswith("@") and not os.path.isfile(os.path.join(directory, word[1:])):
            yield f"{directory}: options from {word}, which is not there now", ""
    for row in _loading(tuple(expanded(rest, directory))):
        file = os.path.join(directory, row.value) if row.value else ""
        yield f"{directory}: {shlex.join(row.words)}", file if os.path.isfile(file) else ""


@functools.lru_cache(maxsize=1 << 14)
def _loading(words: tuple[str, ...]) -> tuple[Argument, ...]:
    """Those of a command's arguments that make a compiler start or load another program."""
    return tuple(row for row in arguments_of(words) if _loads(row))


def _loads(row: Argument) -> bool:
    if row.name in ("-D", "-U", "-I", "-MF", "-MT", "-MQ", "-o"):
        return False
    if any(_LOADING.match(word) for word in row.words):
        return True
    handed_on = [row.value or ""] if row.name in _INNER else []
    if row.words[0].startswith(("-Wp,", "-Wa,")):
        handed_on = row.words[0].split(",")[1:]
    if row.words[0].startswith("-Wa,"):
        return any(word.startswith(("-o", "@")) for word in handed_on)
    return any(_LOADING.match(word) or not _HARMLESS_INNER.match(word) for word in handed_on)


def _is_of_the_system(word: str) -> bool:
    """Whether a program is found where the user's own programs are: by its bare name, in a folder of PATH, or in a
    system's folder. A path through /proc or a relative one could lead into the project."""
    if "/" not in word:
        found = shutil.which(word)
        return found is None or os.path.isabs(found)  # one that is missing is reported when it is started
    if not os.path.isabs(word):
        return False
    folder = os.path.dirname(os.path.normpath(word))
    if folder in {os.path.normpath(p) for p in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(p)}:
        return True
    real = os.path.realpath(word)
    if word.startswith("/proc/") or not real.startswith(_SYSTEM):
        return False
    # A project may be checked out below /opt or /usr/local as well; then its files are its owner's.
    return os.path.isfile(real) and os.stat(real).st_uid == 0


def _visible(line: str) -> str:
    """The line without control characters, which could hide what it says on a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
