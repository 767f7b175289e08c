"""Where futures wait after an edit: whether one that waits now would go on at the place that it is at."""

from __future__ import annotations

from functools import partial

import pytest
from objects_from_rust import compiled, edited

from ipbp.formats.debug_types import types_of_graph
from ipbp.formats.line_rows import line_rows
from ipbp.stages.code_words import CodeWords
from ipbp.stages.suspensions import CoroutineSide, doubtful_suspensions
from ipbp.stages.type_changes import type_changes

SOURCE = """
use std::future::{Future, Ready, ready};
use std::pin::Pin;

fn step(value: u64) -> Ready<u64> {
    ready(value)
}

async fn rounds(log: &'static std::sync::Mutex<String>) -> u64 {
    log.lock().unwrap().push('<');
    step(1).await;
    log.lock().unwrap().push('-');
    step(2).await;
    log.lock().unwrap().push('>');
    3
}

async fn once(start: u64) -> u64 {
    let first = step(start).await;
    first + 1
}

pub fn begin(log: &'static std::sync::Mutex<String>) -> Vec<Pin<Box<dyn Future<Output = u64>>>> {
    vec![Box::pin(rounds(log)), Box::pin(once(3))]
}
"""
ROUNDS = "unit::rounds::{async_fn_env#0}"
MANGLINGS = ["", "-Csymbol-mangling-version=v0"]


def side(source: str, mangling: str) -> CoroutineSide:
    graph = compiled(source, *mangling.split())
    types = types_of_graph(graph)
    return CoroutineSide(types, CodeWords(graph, types.functions), partial(line_rows, graph))


def doubts(
    new: str, mangling: str = "", changed: str = "rounds", allowed: tuple[str, ...] = ()
) -> list[tuple[str, str | None]]:
    """Code and symbol of each refusal. `changed`: part of the names of functions that the edit changed."""
    before, after = side(SOURCE, mangling), side(new, mangling)
    assert not type_changes(before.types, after.types, "unit.rs").refusals, "the layout does not tell"
    names = [link for link, name in after.types.functions.items() if changed in name]
    assert names
    return [(row.code, row.symbol) for row in doubtful_suspensions(before, after, "unit.rs", names, allowed)]


@pytest.mark.parametrize("mangling", MANGLINGS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("push('-')", "push('=')"),
        ("    3\n}", "    33\n}"),
        ("step(2).await", "step(20).await"),
        ("    step(1).await;\n", "    log.lock().unwrap().clear();\n    step(1).await;\n"),
        ("async fn rounds", "\n\nasync fn rounds"),
        ("first + 1", "first + 2"),
    ],
)
def test_places_to_wait_that_stay_between_the_same_lines_are_the_same(mangling: str, old: str, new: str) -> None:
    assert doubts(edited(SOURCE, (old, new)), mangling) == []


AMBIGUOUS = [("suspension-ambiguous", ROUNDS)]
SWAPPED = edited(SOURCE, ("step(1)", "step(9)"), ("step(2)", "step(1)"), ("step(9)", "step(2)"))
ONE_LESS_IN_FRONT = edited(SOURCE, ("step(2).await", "step(3).await"), ("step(1).await", "step(2).await"))
MOVED = edited(
    SOURCE, ("    step(1).await;\n", ""), ("push('-');\n", "push('-');\n    step(1).await;\n")
)  # fmt: skip


@pytest.mark.parametrize("mangling", MANGLINGS)
@pytest.mark.parametrize("new", [SWAPPED, ONE_LESS_IN_FRONT, MOVED])
def test_places_to_wait_that_may_have_been_exchanged_are_refused(mangling: str, new: str) -> None:
    assert doubts(new, mangling) == AMBIGUOUS


def test_only_code_that_changed_is_looked_at_and_the_user_may_know_better() -> None:
    assert doubts(SWAPPED, changed="once") == []
    assert doubts(SWAPPED, allowed=(ROUNDS,)) == []
    assert doubts(SWAPPED, allowed=("all",)) == []


def test_a_place_more_or_less_is_a_layout() -> None:
    new = edited(SOURCE, ("    step(2).await;\n", "    step(2).await;\n    step(4).await;\n"))
    types = [types_of_graph(compiled(text)) for text in (SOURCE, new)]
    assert [(row.code, row.symbol) for row in type_changes(*types, "unit.rs").refusals] == [("layout-changed", ROUNDS)]
