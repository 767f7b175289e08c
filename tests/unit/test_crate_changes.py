"""Why a crate may not be what runs: what cargo and rustc wrote down of its inputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ipbp.build.cargo_commands import CrateCommand
from ipbp.build.crate_changes import edited_since, made_from, other_variable, refusals_of
from ipbp.build.snapshot import Snapshot


def test_variables_of_the_environment_are_read_with_and_without_values(tmp_path: Path) -> None:
    depfile = tmp_path / "app.d"
    depfile.write_text("app: a.rs b.rs\n\na.rs:\n\nb.rs:\n\n# env-dep:SEAL\n# env-dep:OUT_DIR=/o=1\n# env-dep:LAST\n")
    files, variables = made_from(depfile, str(tmp_path), Snapshot())
    assert files == [str(tmp_path / "a.rs"), str(tmp_path / "b.rs")]
    assert variables == {"SEAL": None, "OUT_DIR": "/o=1", "LAST": None}


def crate(folder: Path, kind: str = "bin", name: str = "app") -> CrateCommand:
    words = ("rustc", "--crate-name", name, "--crate-type", kind, "-C", "extra-filename=-a1")
    environment = (("CARGO_PKG_NAME", "app"), ("OUT_DIR", str(folder / "debug/build/app-b2/out")))
    path = str(folder / "debug/deps")
    return CrateCommand(name, f"{name}-a1", kind, str(folder), path, "/a.rs", words, environment, (), True, True)


def test_a_variable_that_was_not_there_or_is_another_now_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEAL", raising=False)
    row = crate(tmp_path)
    assert not other_variable(row, {"SEAL": None, "CARGO_PKG_NAME": "app"})
    assert "CARGO_PKG_NAME" in other_variable(row, {"CARGO_PKG_NAME": "other"})
    monkeypatch.setenv("SEAL", "wax")
    assert "SEAL" in other_variable(row, {"SEAL": None})
    assert not other_variable(row, {"SEAL": "wax"})


def test_a_build_script_is_outdated_by_a_variable_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAMP", "red")
    row, unit = crate(tmp_path), tmp_path / "debug/build/app-b2"
    unit.mkdir(parents=True)
    (unit / "output").write_text("cargo:rerun-if-env-changed=STAMP\n")
    mark = tmp_path / "debug/.fingerprint/app-b2/run-build-script-build-script-build.json"
    mark.parent.mkdir(parents=True)
    local = [{"RerunIfChanged": {"paths": []}}, {"RerunIfEnvChanged": {"var": "STAMP", "val": "red"}}]
    mark.write_text(json.dumps({"local": local}))
    assert refusals_of([row], {row.stem: ""}, Snapshot()) == []
    monkeypatch.setenv("STAMP", "blue")
    (refusal,) = refusals_of([row], {row.stem: ""}, Snapshot())
    assert (refusal.code, refusal.symbol) == ("cargo-build-needed", "app")
    assert "the environment variable STAMP, which has changed" in refusal.fact
    mark.write_text(json.dumps({"local": "of another version"}))
    assert refusals_of([row], {row.stem: ""}, Snapshot()) == []


def test_what_cannot_be_a_patch_is_refused_by_its_kind(tmp_path: Path) -> None:
    rows = [crate(tmp_path, kind, kind.replace("-", "_")) for kind in ("proc-macro", "lib", "cdylib")]
    reasons = {row.stem: f"{row.name} was edited" for row in rows}
    assert [(row.code, row.symbol) for row in refusals_of(rows, reasons, Snapshot())] == [
        ("cargo-build-needed", "proc_macro")
    ]
    whole = [*rows[1:2], crate(tmp_path, "dylib", "shared")]
    reasons = {whole[0].stem: "lib was edited", whole[1].stem: ""}
    (refusal,) = refusals_of(whole, reasons, Snapshot())
    assert (refusal.code, refusal.symbol) == ("cargo-library", "libshared-a1.so")
    assert "lib was edited" in refusal.fact


def test_a_library_that_is_loaded_is_known_by_the_file_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "target/debug"
    (folder / ".fingerprint").mkdir(parents=True)
    source = tmp_path / "a.rs"
    source.write_text("")
    library = folder / "libapp.so"
    assert edited_since(library, 10), "nothing is known of it, so that cargo is asked"
    (folder / "libapp.d").write_text(f"{library}: {source}\n")
    os.utime(source, ns=(9, 9))
    assert not edited_since(library, 10)
    assert not edited_since(folder / "deps/libapp.so", 10)
    os.utime(source, ns=(10, 10))
    assert edited_since(library, 10)
