"""Types of programs whose debug information is split: the same as of those where it is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from running_program import graph_of

from ipbp.formats.debug_types import types_of_file, types_of_graph
from ipbp.formats.elf_image import read_image
from ipbp.pipeline.split_types import split_units

SOURCE = """
pub trait Shape { fn area(&self) -> u64; }
pub struct Square { side: u64, name: [u8; 3] }
impl Shape for Square { fn area(&self) -> u64 { self.side * self.name.len() as u64 } }
static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(3);
async fn later(number: u64) -> u64 { std::future::ready(number).await + 1 }
fn main() {
    let shape: Box<dyn Shape> = Box::new(Square { side: 1, name: [2; 3] });
    let last = COUNT.fetch_add(shape.area(), std::sync::atomic::Ordering::Relaxed);
    drop(later(last));
}
"""


def build(folder: Path, *options: str) -> Path:
    folder.mkdir()
    (folder / "shapes.rs").write_text(SOURCE)
    words = ["rustc", "--edition=2024", "-g", "-Ccodegen-units=1", "-Csave-temps", *options, "shapes.rs"]
    subprocess.run(words, cwd=folder, check=True, timeout=120, capture_output=True)
    return folder / "shapes"


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("kind", ["unpacked", "packed"])
def test_the_halves_say_what_the_whole_says(tmp_path: Path, kind: str, version: str) -> None:
    whole = build(tmp_path / "whole", f"-Cdwarf-version={version}")
    split = build(tmp_path / "split", f"-Cdwarf-version={version}", f"-Csplit-debuginfo={kind}")
    (one,), (other,) = (program.parent.glob("*-cgu.0.rcgu.o") for program in (whole, split))
    expected, found = types_of_graph(graph_of(one)), types_of_graph(graph_of(other), split_units(split))
    assert found.tells_types
    assert found.layouts == expected.layouts
    assert "shapes::Square" in found.layouts
    assert (found.functions, found.variables, found.signatures) == (
        expected.functions,
        expected.variables,
        expected.signatures,
    )
    assert found.tables.keys() == expected.tables.keys() >= {"<shapes::Square as shapes::Shape>::{vtable}"}
    assert {name: [row.line for row in rows] for name, rows in found.waits.items()} == {
        name: [row.line for row in rows] for name, rows in expected.waits.items()
    }
    linked = types_of_file(str(split), split_units(split))
    assert linked.layouts["shapes::Square"] == expected.layouts["shapes::Square"]
    (square,) = linked.layouts["shapes::Square"]
    place = linked.tables["<shapes::Square as shapes::Shape>::{vtable}"][1]
    assert read_image(str(split)).original(place + 8, 8) == square.size.to_bytes(8, "little"), "behind what drops it"


@pytest.mark.parametrize("kind", ["unpacked", "packed"])
def test_halves_that_are_gone_or_of_another_build_tell_nothing(tmp_path: Path, kind: str) -> None:
    split, other = (build(tmp_path / name, f"-Csplit-debuginfo={kind}", "-Copt-level=1") for name in ("a", "b"))
    assert types_of_file(str(split), split_units(split)).tells_types
    for path in (*split.parent.glob("*.dwo"), *split.parent.glob("*.dwp")):
        path.unlink()
    assert not types_of_file(str(split), split_units(split)).tells_types
    assert not types_of_file(str(split)).tells_types
    assert other.exists()
