"""lldb may keep frames of the stop before; only registers are true (`lldb_ipbp.fresh`)."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest


class Frame:
    """Of a thread that lldb believes to be at `believed` and that is at `true`, None where that cannot be read."""

    def __init__(self, believed: int, true: int | None) -> None:
        self.believed, self.true = believed, true
        self.written: list[int] = []

    def IsValid(self) -> bool:
        return True

    def GetPC(self) -> int:
        return self.believed

    def SetPC(self, pc: int) -> bool:
        self.written.append(pc)
        self.believed = self.true = pc
        return True

    def FindRegister(self, name: str) -> Frame:
        assert name == "rip"
        return self

    def GetNonSyntheticValue(self) -> Frame:
        return self

    def GetValueAsUnsigned(self, error: Error, failing: int) -> int:
        error.is_success = self.true is not None
        return failing if self.true is None else self.true


class Error:
    is_success = True

    def Success(self) -> bool:
        return self.is_success


class Thread:
    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def GetFrameAtIndex(self, index: int) -> Frame:
        assert index == 0
        return self.frame


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    lldb = ModuleType("lldb")
    lldb.SBError = Error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lldb", lldb)
    monkeypatch.delitem(sys.modules, "lldb_ipbp.fresh", raising=False)
    yield import_module("lldb_ipbp.fresh")
    sys.modules.pop("lldb_ipbp.fresh", None)


def test_a_thread_stays_where_it_is_when_its_frames_are_forgotten(fresh: Any) -> None:
    frame = Frame(believed=0x1000, true=0x2000)
    fresh.forget_frames(Thread(frame))
    assert frame.written == [0x2000]


def test_a_thread_whose_registers_cannot_be_read_is_left_alone(fresh: Any) -> None:
    frame = Frame(believed=0x1000, true=None)
    fresh.forget_frames(Thread(frame))
    assert frame.written == []


@pytest.mark.parametrize(("believed", "written"), [(0x1000, [0x2000]), (0x2000, [])])
def test_frames_of_an_earlier_stop_are_made_anew(fresh: Any, believed: int, written: list[int]) -> None:
    frame = Frame(believed, true=0x2000)
    fresh.with_true_frames(Thread(frame))
    assert frame.written == written
