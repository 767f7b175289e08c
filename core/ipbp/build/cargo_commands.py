"""How rustc is started for each crate of a program: cargo is asked, in a target directory of ipbp's own.

cargo prints a command only when it runs it, and running it in the user's target directory would change what the
user's next build does. So cargo builds into an empty folder, with a recorder in the place of rustc
(`rustc_recorder`): it goes through the whole program in well under a second and compiles nothing. The names that it
chose hold hashes of everything that distinguishes one build from another (features, profile, flags, compiler), so
that they are in the user's target directory exactly when it was built that way.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ipbp.build import rustc_recorder
from ipbp.build.cargo import (
    CargoProgram,
    cargo_program,
    is_library,
    library_name,
    marked_features,
    project_roots,
    run_cargo,
)
from ipbp.build.cargo_settings import unusual_settings
from ipbp.build.notes import write_whole
from ipbp.build.places import cache_folder
from ipbp.build.rustc_recorder import RECORDS, SHADOW, TARGET, outputs, read_options, stem
from ipbp.build.snapshot import Snapshot
from ipbp.build.trust import require_agreement
from ipbp.errors import IpbpError

_FORMAT = 1  # of the kept answers; a new number forgets the old ones
_RECORDER = """#!/bin/sh
exec {python} -IS {path} "$@"
"""


@dataclass(frozen=True, slots=True)
class CrateCommand:
    """How one crate is compiled. `name`: of the crate. `stem`: of its files in `folder`, the user's. `source`: the
    root module. `arguments`: rustc first. `environment`: what cargo added. `externs`: files of the user's that it
    needs, libraries of this program and others. `is_local`: a crate of the user's, not one from a registry.
    `kind`: "bin", "lib", "proc-macro", "build-script" or another crate type; of several the one that is used here.
    `is_linked`: its code is in the program,
    not only in what ran while that was built."""

    name: str
    stem: str
    kind: str
    directory: str
    folder: str
    source: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    externs: tuple[str, ...]
    is_local: bool
    is_linked: bool = False

    @property
    def package(self) -> str:
        """The folder of its package."""
        return dict(self.environment).get("CARGO_MANIFEST_DIR", "")

    @property
    def given_name(self) -> str:
        """A program's name as cargo has it, which may have dashes."""
        return dict(self.environment).get("CARGO_BIN_NAME", "")

    @property
    def is_image(self) -> bool:
        """Whether it is linked as a whole: a program, or a library that is loaded."""
        return self.kind in ("bin", "cdylib", "dylib")

    @property
    def crate_types(self) -> tuple[str, ...]:
        return tuple(read_options(list(self.arguments)).get("--crate-type", ["bin"]))

    @property
    def is_linked_here(self) -> bool:
        """Whether rustc starts a linker for it."""
        return not {"bin", "cdylib", "dylib"}.isdisjoint(self.crate_types)

    @property
    def product(self) -> Path:
        """What the user's build made of it, the library or program."""
        names = outputs(read_options(list(self.arguments)))
        unwanted = (".d", ".rmeta", ".a", ".rlib" if self.is_image else ".so" if len(self.crate_types) > 1 else ".d")
        wanted = [name for name in names if not name.endswith(unwanted)]
        return Path(self.folder, wanted[0] if wanted else names[-1])

    @property
    def depfile(self) -> Path:
        return Path(self.folder, f"{self.stem}.d")


def crate_commands(executable: Path, folders: Callable[[], Iterable[Path]]) -> tuple[CrateCommand, ...]:
    """All crates of a program that lies in cargo's folders, each behind those that it needs. `folders`: as for
    `cargo.project_roots`.

    The answer is kept until a manifest, the lock file, cargo's settings, the environment or the compiler changes;
    otherwise cargo runs. Errors: `agreement-needed`; those of `cargo.cargo_program`; `cargo-failed`;
    `cargo-options-unknown` when the target directory was not built in any way that is tried.
    """
    note = cache_folder("cargo") / f"{_key(executable)}.json"
    kept = _kept(note)
    if kept is not None and _was_built(kept) and _is_program(kept[-1].product, executable):
        return kept
    roots = list(project_roots(executable, folders))
    require_agreement((), settings={line: file for root in roots for line, file in unusual_settings(root).items()})
    program = cargo_program(executable, roots)
    possible: list[tuple[CrateCommand, ...]] = []
    missing = ""
    failed: list[IpbpError] = []
    for options in _ways(program):
        try:
            commands = _learn(program, options)
        except IpbpError as error:
            # A build script that was not run in this way has no answer.
            failed.append(error)
            continue
        if not commands or not _was_built(commands):
            lacking = [row.product.name for row in commands if not _was_built((row,))]
            missing = missing or next(iter(lacking), executable.name)
            continue
        if program.mark is not None and not _is_marked(commands[-1], program.mark):
            missing = missing or commands[-1].product.name
            continue  # there as well, and not what runs
        possible.append(commands)
        if _is_program(commands[-1].product, executable):
            break
    if not possible and failed and not missing:
        raise failed[0]
    if not possible:
        raise IpbpError(
            "cargo-options-unknown",
            f"{program.target} was not built as cargo would build it now: {missing} is not there. Cargo.toml, "
            "Cargo.lock, the toolchain or RUSTFLAGS changed since, or it was built with --config",
            "Run `cargo build` and start the program once more, and the debugger with the same environment.",
        )
    _keep(note, program, possible[-1])
    return possible[-1]


def _is_marked(row: CrateCommand, mark: Path) -> bool:
    """Whether a program would be built as the mark says that it was: by the hash in its name, or, for a dynamic
    library, which has none there, by its features."""
    name, _, digest = row.stem.rpartition("-")
    if name:
        return mark.parent.name.endswith(digest)
    features = marked_features(mark)
    configured = {value for value in read_options(list(row.arguments)).get("--cfg", []) if value.startswith("feature=")}
    return features is None or {f'feature="{feature}"' for feature in features} == configured


def _is_program(product: Path, executable: Path) -> bool:
    """Whether cargo put this very file where the program lies (a hard link, where the file system has them)."""
    try:
        return os.path.samefile(product, executable) or filecmp.cmp(product, executable, shallow=False)
    except OSError:
        return False


def _ways(program: CargoProgram) -> Iterator[list[str]]:
    """Options with which cargo makes this program. They differ in whose features are united, and in how much debug
    information procedural macros have, and that is part of every name. Features of the command line are tried last."""
    own = ["-p", program.package]
    profiles = [program.profile]
    if program.is_test:
        profiles = {"dev": ["test"], "release": ["release", "bench"]}.get(program.profile, profiles)
        chosen = [] if program.selection[0] in ("--lib", "--bin") else [[*own, *program.selection]]
        kind = "--benches" if program.selection[0] == "--bench" else "--tests"
        wide = [[kind], [*own, kind], ["--workspace", kind], *chosen]
    else:
        wide = [[], own, ["--workspace"]] if program.selection[0] in ("--bin", "--lib") else []
        wide += [[*own, *program.selection], list(program.selection)]
    ways = [["--profile", profile, *way] for profile in profiles for way in [*wide, ["--workspace", "--all-targets"]]]
    yield from ways
    if program.features:
        yield from ([*way, "--features", ",".join(program.features)] for way in ways)
        mine = [row for row in program.features if row.startswith(f"{program.package}/")]
        for profile in profiles:
            yield ["--profile", profile, *own, "--no-default-features", "--features", ",".join(mine)]
    else:
        yield from (["--profile", profile, *own, "--no-default-features"] for profile in profiles)


def _learn(program: CargoProgram, options: list[str]) -> tuple[CrateCommand, ...]:
    with tempfile.TemporaryDirectory(prefix="ask-", dir=cache_folder("cargo")) as name:
        folder = Path(name)
        shadow, records = folder / "target", folder / "records"
        records.mkdir()
        recorder = folder / "rustc"
        python, path = map(shlex.quote, (sys.executable, rustc_recorder.__file__))
        recorder.write_bytes(os.fsencode(_RECORDER.format(python=python, path=path)))
        recorder.chmod(stat.S_IRWXU)
        words = ["build", "--offline", "--locked", "--target-dir", str(shadow), *options]
        if program.triple:
            words += ["--target", program.triple]
        environment = {
            "RUSTC_WRAPPER": str(recorder),
            # A build directory of the user's settings would be written to.
            "CARGO_BUILD_BUILD_DIR": str(shadow),
            RECORDS: str(records),
            SHADOW: str(shadow),
            TARGET: str(program.target),
        }
        if program.rustflags is not None:
            # They are no part of the names, so that another environment would go unnoticed.
            environment["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(program.rustflags)
        run_cargo(words, program.root, environment)
        rows = [json.loads(path.read_text("utf-8", "surrogateescape")) for path in sorted(records.glob("*.json"))]
        commands = [_command(row, str(shadow), str(program.target), set(environment)) for row in rows]
        return _in_order(commands, program.executable)


def _command(row: dict[str, Any], shadow: str, target: str, ours: set[str]) -> CrateCommand:
    arguments = [word.replace(shadow, target) for word in row["arguments"]]
    options = read_options(arguments)
    name = options["--crate-name"][-1]
    added = {
        key: value.replace(shadow, target)
        for key, value in row["environment"].items()
        if os.environ.get(key) != value and key not in ours and key not in ("CARGO_MAKEFLAGS", "_", "SHLVL")
    }
    types = options.get("--crate-type", ["bin"])
    # Of what is several things crates use the library; as which it is loaded is known of the last one (`_in_order`).
    kind = next((row for row in types if row in ("lib", "rlib")), types[0])
    kind = "build-script" if name.startswith("build_script_") else kind
    source = next(word for word in arguments[1:] if word.endswith(".rs") and not word.startswith("-"))
    return CrateCommand(
        name=name,
        stem=stem(options),
        kind=kind,
        directory=row["directory"],
        folder=options["--out-dir"][-1],
        source=os.path.normpath(os.path.join(row["directory"], source)),
        arguments=tuple(arguments),
        environment=tuple(sorted(added.items())),
        externs=tuple(path for value in options.get("--extern", []) if (path := value.partition("=")[2])),
        is_local="--cap-lints" not in options,
    )


def _in_order(commands: list[CrateCommand], program: Path) -> tuple[CrateCommand, ...]:
    """The program and all that it was made with, each behind those that it needs; nothing when it is not among them.
    Marked is what it needs to run."""
    by_file = {file_of(str(row.product)): row for row in commands}
    done: dict[str, CrateCommand] = {}

    def add(row: CrateCommand, is_linked: bool) -> None:
        is_linked = is_linked and row.kind not in ("proc-macro", "build-script")
        known = done.get(row.stem)
        if known is not None and (known.is_linked or not is_linked):
            return
        for path in row.externs:
            if (needed := by_file.get(file_of(path))) is not None:
                add(needed, is_linked)
        for script in commands:
            if script.kind == "build-script" and script.package == row.package and script is not row:
                add(script, False)
        done[row.stem] = replace(row, is_linked=is_linked)

    for row in _of_program(commands, program):
        add(row, True)
    return tuple(done.values())


def _of_program(commands: list[CrateCommand], program: Path) -> list[CrateCommand]:
    """The command that makes the program, or none."""
    if is_library(program):
        made = [row for row in commands if program.name == library_name(row.name) and "--test" not in row.arguments]
        kinds = {row.stem: next((kind for kind in ("cdylib", "dylib") if kind in row.crate_types), "") for row in made}
        return [replace(row, kind=kinds[row.stem]) for row in made if kinds[row.stem]][:1]
    programs = [row for row in commands if row.kind == "bin"]
    hashed = [row for row in programs if program.name == row.stem]
    plain = (row for row in programs if program.name in (row.given_name, row.name) and "--test" not in row.arguments)
    return (hashed or list(plain))[:1]


def file_of(path: str) -> str:
    """The same for a library's `.rlib` and `.rmeta`."""
    return path.removesuffix(".rmeta").removesuffix(".rlib")


def _was_built(commands: tuple[CrateCommand, ...]) -> bool:
    return all(row.product.exists() or _has_mark(row) for row in commands if row.kind != "build-script")


def _has_mark(row: CrateCommand) -> bool:
    """Whether cargo built a crate in this way, though the file is gone: it takes the library away before it starts
    rustc, so that none is there after a `cargo build` that failed."""
    _, dash, digest = row.stem.rpartition("-")
    return bool(dash) and any((Path(row.folder).parent / ".fingerprint").glob(f"*-{digest}"))


def _key(executable: Path) -> str:
    words = [str(_FORMAT), str(executable)]
    # What cargo and rustc read of the environment; the rest of it changes with every terminal.
    read = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(("CARGO", "RUST")))
    return hashlib.sha256(os.fsencode("\0".join([*words, *read]))).hexdigest()


def _sources_of_truth(program: CargoProgram, commands: tuple[CrateCommand, ...]) -> Iterator[str]:
    """Files that decide how the program is built, present or not."""
    if program.mark is not None:
        yield str(program.mark)
    for row in commands:
        yield row.arguments[0]
    for manifest in program.manifests:
        yield str(manifest)
        yield str(manifest.with_name("build.rs"))
    yield str(program.root / "Cargo.toml")
    yield str(program.root / "Cargo.lock")
    for folder in (program.root, *program.root.parents):
        for name in ("rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"):
            yield str(folder / name)
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    yield os.path.join(home, "config.toml")
    yield os.path.join(home, "config")
    yield os.path.join(os.environ.get("RUSTUP_HOME") or os.path.expanduser("~/.rustup"), "settings.toml")


def _keep(note: Path, program: CargoProgram, commands: tuple[CrateCommand, ...]) -> None:
    snapshot = Snapshot()
    files = {path: snapshot.digest(path) for path in dict.fromkeys(_sources_of_truth(program, commands))}
    write_whole(note, json.dumps({"files": files, "commands": [asdict(row) for row in commands]}))


def _kept(note: Path) -> tuple[CrateCommand, ...] | None:
    try:
        rows = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    snapshot = Snapshot()
    if any(snapshot.digest(path) != digest for path, digest in rows["files"].items()):
        return None
    return tuple(_from_json(row) for row in rows["commands"])


def _from_json(row: Mapping[str, Any]) -> CrateCommand:
    return CrateCommand(
        **{
            **row,
            "arguments": tuple(row["arguments"]),
            "environment": tuple((name, value) for name, value in row["environment"]),
            "externs": tuple(row["externs"]),
        }
    )
