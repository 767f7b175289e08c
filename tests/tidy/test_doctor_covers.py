"""`hotpatch doctor` looks at every cause of trouble in docs/limits.md that can be told before a patch is made."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipbp.build.store import Store
from ipbp.errors import IpbpError
from ipbp.host.doctor import examine
from ipbp.host.fake import FakeInferior
from ipbp.host.journal import Journal, open_entry
from ipbp.pipeline.doctor import described, near_memory, patched_code, patched_units
from ipbp.pipeline.record import Record, UnitRecord
from ipbp.pipeline.request import Request
from ipbp.protocol import Description, PatchPlan
from ipbp.stages.arena import Arena, Part

ROOT = Path(__file__).parents[2]

CHECKED = {
    "debugger": """inferior-core inferior-debugger-old inferior-gone inferior-none inferior-remote inferior-recorded
        inferior-observed inferior-running inferior-architecture""",
    "permissions": "inferior-memory inferior-permission seccomp",
    "journal": "journal-malformed journal-unfinished journal-untrusted journal-unwritable recover-unexpected",
    "engine": """engine-died engine-python engine-silent engine-start engine-version protocol folder-unwritable
        folder-untrusted image-malformed image-unreadable program-unreadable image-wrong-architecture""",
    "symbols": "no-symbols",
    "debug information": "no-type-information",
    "build information": """agreement-needed cargo-failed cargo-missing cargo-options-unknown
        compile-commands-malformed compile-commands-missing config-malformed debug-information-malformed
        no-cargo-project no-commands""",
    "units": """build-command-missing build-directory-missing command-needs-shell compiler-missing gcov lto modules
        sanitizer units-unpatchable""",
    "near memory": "arena-full no-near-memory",
    "patched code": "entry-changed memory-changed",
    "patched units": "store-object-missing",
    "watch mode": "watch-limit",
}
"""Line of the doctor -> codes of the causes that it finds."""


NOT_CHECKED = {
    "only the edit tells, by what it changes and in which function": """
        allocator-replaced ambiguous-static cargo-build-needed cargo-library compile-failed copies-differ
        coroutine-changed crate-without-objects data-alignment-changed data-kind-changed data-size-changed
        debug-too-large duplicate-symbol entry-branch-target entry-out-of-reach entry-return-address entry-shared
        entry-too-short function-unlocated image-ambiguous image-not-lifted
        indirect-function-changed label-in-variable layout-changed
        library-not-loaded method-table-changed new-initialiser new-thread-local not-the-running-code
        object-compression object-lto object-malformed object-missing object-not-relocatable object-shares-sections
        moved-between-images object-undecodable object-wrong-architecture out-of-reach-data part-alone refused
        relocation-out-of-range relocation-unsupported several-copies shared-constant-changed signature-changed
        size-of-outside-symbol suspension-ambiguous symbol-ambiguous thread-local undefined-symbol unit-ambiguous
        unwind-data-not-carried unwind-malformed variable-split variable-type-changed variable-unlocated""",
    "only the moment of the stop tells, by where the threads are or what else happens then": """
        address-taken caller-running entry-unreadable frame-argument-gone frame-layout-changed frame-machine
        frame-moved frame-not-changed frame-not-described frame-place-changed frame-unwinds image-unloaded inferior-busy
        inferior-call inferior-step inferior-thread inferior-unstoppable initialiser-failed inject-address-taken
        inherited-undone inject-diverted inject-no-site interrupted machine-short memory-not-empty memory-unreadable
        plan-outdated proc-missing program-busy quiet-point safepoint-frame safepoint-stuck sources-changing""",
    "it is about the words of one command": """
        agreement-declined agreement-unknown deopt-needless deopt-unknown frame-none no-such-patch nothing-to-undo
        object-unreadable output-unwritable undo-order usage""",
    "only the patch file tells that is written or applied, or the builds that it is made of": """
        build-tree-empty build-tree-unreadable crate-in-tree earlier-patch-unknown moved-definitions no-build-id
        nothing-to-save object-gone object-not-linked objects-missing patch-file-malformed patch-file-too-large
        patch-file-unreadable patch-file-unwritable patch-file-version patch-other-build""",
    "it is said by `ipbp` in a shell, before there is a debugger to ask": """
        debugger-attach debugger-command debugger-died debugger-missing debugger-plugin debugger-timeout
        debugger-without-python follow-failed not-all plan-unreadable plugin-missing process-ended
        process-main-thread-ended process-missing process-permission process-traced program-start""",
    "something failed that should not, and nothing announces it": """
        bug engine-bug image-short inferior-debugger inferior-ptrace inferior-register inferior-symbols inject-failed
        plan-malformed rollback-incomplete symbols-lost write-lost""",
}
"""Why the doctor does not look -> codes."""


def documented() -> list[str]:
    return re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/limits.md").read_text(), re.M)


def test_each_cause_is_looked_at_or_cannot_be() -> None:
    told = [code for row in (*CHECKED.values(), *NOT_CHECKED.values()) for code in row.split()]
    assert sorted(told) == sorted(documented())


def test_the_doctor_has_these_lines() -> None:
    files = (ROOT / "core/ipbp/host/doctor.py", ROOT / "core/ipbp/pipeline/doctor.py")
    lines = [name for file in files for name in re.findall(r'_line\("([a-z ]+)"', file.read_text())]
    assert set(lines) == {*CHECKED, "program"}


# --- what the engine looks at --------------------------------------------------------------------------------------


def request(folder: Path, **more: object) -> Request:
    described = Description(1, "x86_64-linux", "fake", "/p/app", True, False)
    return Request(described, (), folder, 1, **{"record": Record(), "entries": {}, "arenas": (), **more})


def code_of(look: Callable[[], object]) -> str:
    with pytest.raises(IpbpError) as caught:
        look()
    assert caught.value.advice
    return caught.value.code


def test_a_jump_that_is_gone_is_found(tmp_path: Path) -> None:
    asked = request(tmp_path, entries={0x1000: b"\xe9jump", 0x2000: b"\xe9jum2"})
    memory = {0x1000: b"\xe9jump", 0x2000: b"\xe9jum2"}
    assert patched_code(asked, lambda places: [memory[at] for at, _ in places]) == "2 entries lead to new code"
    memory[0x2000] = b"\xccjum2"
    assert code_of(lambda: patched_code(asked, lambda places: [memory[at] for at, _ in places])) == "entry-changed"


def test_an_object_that_was_thrown_away_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(b"object")
    asked = request(tmp_path, record=Record({"app": {"/p/a.c": UnitRecord(digest, {}), "/p/b.c": UnitRecord("", {})}}))
    assert patched_units(asked, store) == "1 object of earlier patches kept"
    store.get(digest).unlink()
    assert code_of(lambda: patched_units(asked, store)) == "store-object-missing"


def test_memory_that_is_almost_used_up_is_found(tmp_path: Path) -> None:
    image = SimpleNamespace(near_start=0x400000, near_end=0x500000, is_low=False, counts_upwards=False)
    room = Arena(0x600000, (Part("rx", 0x600000, 0x100000, 0x1000), Part("rw", 0x700000, 0x100000)))
    full = Arena(0x600000, (Part("rx", 0x600000, 0x100000, 0xFF000), Part("rw", 0x700000, 0x100000)))
    assert near_memory(request(tmp_path, arenas=(room,)), image) == "reserved at 0x600000"  # type: ignore[arg-type]
    found = code_of(lambda: near_memory(request(tmp_path, arenas=(full,)), image))  # type: ignore[arg-type]
    assert found == "arena-full"


@pytest.mark.parametrize(("flags", "is_described"), [((), False), (("-g",), True), (("-g", "-gz"), True)])
def test_debug_information_is_seen(tmp_path: Path, gcc: str, flags: tuple[str, ...], is_described: bool) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    subprocess.run([gcc, *flags, "a.c", "-o", "a"], cwd=tmp_path, check=True)
    assert described(tmp_path / "a") == is_described


# --- what the debugger's part looks at -----------------------------------------------------------------------------


class Asked:
    """A command under way in a debugger that has the fake program."""

    def __init__(self) -> None:
        self.inferior = FakeInferior()

    def ask(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        if verb == "hello":
            return {"version": "0", "python": "3", "pid": 1}
        raise IpbpError("image-unreadable", "a file cannot be read", "Run the debugger as its user.")


def lines(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr("ipbp.host.doctor.open_journal", lambda pid, remote: journal)
    return {line["name"]: line for line in examine(Asked(), dict)}


def test_an_interrupted_patch_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    found = lines(monkeypatch, journal)
    assert found["journal"]["ok"]
    assert "0 patches in force" in found["journal"]["text"]
    assert not found["engine"]["ok"], "what the engine cannot look at is said"
    plan = PatchPlan(1, ("/p/patch-1.elf",), (), (), (), (), (), ())
    journal.begin(open_entry(plan))
    found = lines(monkeypatch, journal)
    assert "[journal-unfinished]" in found["journal"]["text"]
    journal.commit(1)
    assert "1 patch in force" in lines(monkeypatch, journal)["journal"]["text"]


def test_a_journal_that_cannot_be_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "space").mkdir()  # root may write to any folder
    assert "[journal-unwritable]" in lines(monkeypatch, Journal(tmp_path))["journal"]["text"]
