"""Two target folders of cargo and nothing else become a patch file, or a refusal with the reason."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from build_tree import run, write

from ipbp.build.store import user_store
from ipbp.errors import Refused
from ipbp.patch_file import PatchFile
from ipbp.pipeline.build_trees import patch_of_trees

FILES = {
    "Cargo.toml": '[workspace]\nmembers = ["app", "part", "shown"]\nresolver = "2"\n',
    "app/Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
    '[dependencies]\npart = { path = "../part" }\nshown = { path = "../shown" }\n',
    "app/build.rs": 'fn main() { println!("cargo:rustc-env=MADE=by the script"); }\n',
    "app/src/main.rs": "shown::shown!();\n"
    "#[inline(never)]\nfn told(x: u64) -> u64 { part::twice(x) + 1 }\n"
    'fn main() { println!("{} {} {}", told(4), env!("MADE"), shown()); }\n',
    "part/Cargo.toml": '[package]\nname = "part"\nversion = "0.1.0"\nedition = "2021"\n',
    "part/src/lib.rs": "#[inline(never)]\npub fn twice(x: u64) -> u64 { x * 2 }\n",
    "shown/Cargo.toml": '[package]\nname = "shown"\nversion = "0.1.0"\nedition = "2021"\n[lib]\nproc-macro = true\n',
    "shown/src/lib.rs": "use proc_macro::TokenStream;\n"
    "#[proc_macro]\npub fn shown(_words: TokenStream) -> TokenStream {\n"
    '    "#[inline(never)] fn shown() -> u64 { 7 }".parse().unwrap()\n}\n',
}
EDITS = {
    "app/build.rs": ("by the script", "by another"),
    "app/src/main.rs": ("+ 1 }", "+ 1000 }"),
    "part/src/lib.rs": ("x * 2", "x * 2 + x / 3"),
    "shown/src/lib.rs": ("{ 7 }", "{ 70 }"),
}


@dataclass(frozen=True)
class Trees:
    old: Path
    new: Path

    def without(self, folder: Path, pattern: str) -> Trees:
        """Copies of both, which lack these files."""
        copies = [Path(shutil.copytree(tree, folder / tree.name)) for tree in (self.old, self.new)]
        for tree in copies:
            for path in sorted(tree.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Trees(*copies)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    folder = tmp_path_factory.mktemp("crates")
    at = folder / "src"
    write(at, FILES)
    run("cargo", "build", "--offline", "--quiet", cwd=at)
    found = Trees(folder / "old", folder / "new")
    shutil.copytree(at / "target/debug", found.old)
    write(at, {name: FILES[name].replace(*words) for name, words in EDITS.items()})
    run("cargo", "build", "--offline", "--quiet", cwd=at)
    shutil.copytree(at / "target/debug", found.new)
    return found


@pytest.fixture(autouse=True)
def folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def patch(trees: Trees, *, allow_missing: bool = False, program: str = "") -> PatchFile | None:
    old, new = trees.old / program, trees.new / program
    return patch_of_trees(old, new, [], allow_missing, user_store(), lambda _text: None)


def refused(act: Callable[[], object]) -> Sequence[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        act()
    return [(row.code, row.fact) for row in caught.value.refusals]


@pytest.mark.parametrize("program", ["", "app"])
def test_edits_of_crates_are_in_it_and_what_runs_at_the_build_is_not(trees: Trees, program: str) -> None:
    found = patch(trees, program=program)
    assert found is not None
    assert [image.name for image in found.images] == ["app"]
    assert {Path(row.name).parent.parent.name for row in found.units} == {"app", "part"}
    assert all(row.is_crate and Path(row.name).is_absolute() for row in found.units)
    changed = {row.name for row in found.functions if row.status == "changed"}
    assert changed == {"app::told", "app::shown", "app::main", "part::twice"}


def test_a_program_without_the_objects_of_its_own_crate_is_refused(trees: Trees, tmp_path: Path) -> None:
    fewer = trees.without(tmp_path, "incremental/app-*")
    ((code, fact),) = refused(lambda: patch(fewer))
    assert code == "objects-missing"
    assert "app/src/main.rs" in fact
    found = patch(fewer, allow_missing=True)
    assert found is not None
    assert [row.name for row in found.functions] == ["part::twice"]


def test_a_crate_that_only_one_tree_has_is_refused(trees: Trees, tmp_path: Path) -> None:
    other = Trees(trees.old, trees.without(tmp_path, "**/libpart*.rlib").new)
    rows = refused(lambda: patch(other))
    assert {code for code, _ in rows} == {"crate-in-tree"}
    assert all("the crate part" in fact for _, fact in rows)


def test_a_program_that_does_not_tell_its_crates_is_refused(trees: Trees, tmp_path: Path) -> None:
    other = trees.without(tmp_path, "deps/app-*")
    for tree in (other.old, other.new):
        subprocess.run(["strip", "--strip-debug", tree / "app"], check=True)
    ((code, fact),) = refused(lambda: patch(other))
    assert code == "objects-missing"
    assert "no debug information of its crates" in fact


def test_an_edit_of_a_library_that_other_crates_are_compiled_against_is_refused(tmp_path: Path) -> None:
    at, trees = tmp_path / "src", Trees(tmp_path / "old", tmp_path / "new")
    package = '[package]\nname = "part"\nversion = "0.1.0"\nedition = "2021"\n[lib]\ncrate-type = ["dylib"]\n'
    write(at, {"Cargo.toml": package})
    for tree, text in ((trees.old, "x * 2"), (trees.new, "x * 3")):
        write(at, {"src/lib.rs": f"#[inline(never)]\npub fn twice(x: u64) -> u64 {{ {text} }}\n"})
        run("cargo", "build", "--offline", "--quiet", cwd=at)
        shutil.copytree(at / "target/debug", tree)
    assert [code for code, _ in refused(lambda: patch(trees))] == ["cargo-library"]
