"""A web server made of crates that nobody here wrote (axum, tokio, hyper) is patched under load."""

from __future__ import annotations

import json

import pytest
from cargo_project import CargoProject
from load import Load
from scenario import Edit, Talk
from sessions import ipbp

pytestmark = [pytest.mark.live, pytest.mark.compiles]
WORKSPACE = "web"
BODY = b"hello\n"
EDITS = (
    Edit("a handler that waits", "web/src/main.rs", [('"old".to_string()', '"o".replace("o", "new")')], [], []),
    Edit(
        "a middleware",
        "web/src/main.rs",
        [
            (
                'HeaderValue::from_static("plain")',
                'HeaderValue::from_str(&format!("fancy {}", STAMPED.fetch_add(0, Relaxed))).unwrap()',
            ),
            (
                "async fn serve()",
                "use std::sync::atomic::{AtomicU64, Ordering::Relaxed};\n"
                "static STAMPED: AtomicU64 = AtomicU64::new(7);\n\n"
                "async fn serve()",
            ),
        ],
        [],
        [],
    ),
    Edit("a function of another crate", "stock/src/lib.rs", [("stock of {name}", "plenty of {name}")], [], []),
)
HEADERS = (b"\r\nx-handler: new\r\n", b"\r\nx-stamp: fancy 7\r\n", b"\r\nx-stock: plenty of tea\r\n")
NEVER = b"\r\nx-never: "


@pytest.mark.parametrize(("debugger", "at_once"), [("gdb", 1), ("lldb", 3)])
def test_a_server_is_patched_under_load_and_no_connection_is_dropped(
    crates: CargoProject, running: Talk, debugger: str, at_once: int
) -> None:
    with Load(int(running.hear()), NEVER, BODY) as load:
        for first in range(0, len(EDITS), at_once):
            load.expect(HEADERS[first])
            load.all_answers(with_header=False)
            crates.edit(*EDITS[first : first + at_once])
            outcome = ipbp("apply", running.process.pid, debugger)
            assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
            for header in HEADERS[: first + at_once]:
                load.expect(header)
                load.all_answers(with_header=True)
        assert ipbp("undo", running.process.pid, debugger)["outcome"] == "undone"
        load.all_answers(with_header=False)
    assert not load.dropped
