"""New variables that may be those which were elsewhere until the edit: in Rust, whose names say where."""

from __future__ import annotations

import pytest

from ipbp.stages.begun_anew import Definitions, in_another_module
from ipbp.stages.rust_names import source_path

STATE_OF_F1 = "_ZN4high2f15STATE17hccb5e5fd3e1d7862E"
F1 = "_ZN4high2f117h9c559e6fc5feaf1bE"
OF_METHOD = "_RNvNvMNtNtCsjrHSEGnQ3l9_3std6thread2idNtB4_8ThreadId3new7COUNTER"
OF_CLOSURE = "_RNvNCNvNtCsjrHSEGnQ3l9_3std9panicking12default_hook011FIRST_PANIC"
THREAD_LOCAL = "_RNvNCNKNvNtNtCsjrHSEGnQ3l9_3std2io5stdio14OUTPUT_CAPTURE0023___RUST_STD_INTERNAL_VAL"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (f"{STATE_OF_F1}.0", "high f1 STATE"),
        ("_RNvNvCs6Bk8vpLA3oE_3low2f15STATE", "low f1 STATE"),
        (
            "_RNvNvMNtNtCsjrHSEGnQ3l9_3std6thread2idNtB4_8ThreadId3new7COUNTER",
            "<std::thread::id::ThreadId> new COUNTER",
        ),
        (THREAD_LOCAL, "std io stdio OUTPUT_CAPTURE"),
        (
            "_RNvNCNvNtCsjrHSEGnQ3l9_3std9panicking12default_hook011FIRST_PANIC",
            "std panicking default_hook FIRST_PANIC",
        ),
    ],
)
def test_a_path_is_what_the_source_says(name: str, path: str) -> None:
    assert source_path(name) == tuple(path.split())


@pytest.mark.parametrize(
    ("lost", "fresh", "is_doubtful"),
    [
        (STATE_OF_F1, "_ZN3low2f15STATE17h9c559e6fc5feaf1bE", True),  # its function is in another crate
        (STATE_OF_F1, "_ZN3low2f25STATE17h9c559e6fc5feaf1bE", False),  # another function has one
        (STATE_OF_F1, "_ZN3low2f15COUNT17h9c559e6fc5feaf1bE", False),
        (STATE_OF_F1, "_ZN4high2f15STATE17h9c559e6fc5feaf1bE", False),  # in its place, of another type
        ("_ZN4high5TOTAL17hccb5e5fd3e1d7862E", "_ZN3low5TOTAL17h9c559e6fc5feaf1bE", True),  # a crate's own
        ("_ZN4high5TOTAL17hccb5e5fd3e1d7862E", "_ZN3low5stats5TOTAL17h9c559e6fc5feaf1bE", True),  # now a module's
        ("_ZN4high5TOTAL17hccb5e5fd3e1d7862E", "_ZN3low2f25TOTAL17h9c559e6fc5feaf1bE", False),  # now a function's
        ("total", "_ZN3low5total17h9c559e6fc5feaf1bE", False),  # of C
    ],
)
def test_a_variable_that_may_have_moved_is_told_from_another(lost: str, fresh: str, is_doubtful: bool) -> None:
    before = Definitions((F1,), (lost,))
    after = Definitions(("_ZN3low2f117h9c559e6fc5feaf1bE", "_ZN3low2f217h9c559e6fc5feaf1bE"), (fresh,))
    assert list(in_another_module(before, after)) == ([(fresh, lost)] if is_doubtful else [])
