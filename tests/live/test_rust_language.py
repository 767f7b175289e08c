"""What Rust keeps beside plain variables: futures that wait, tables of methods, closures, thread-locals, type ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cargo_project import CargoProject, build_cargo_project
from scenario import Edit, Talk
from sessions import ipbp
from test_rust import planned

from ipbp.errors import Refused

pytestmark = [pytest.mark.live, pytest.mark.compiles]
WORKSPACE = "lodge"
MAIN, BEASTS, FUTURES, STATE = (f"src/{name}.rs" for name in ("main", "beasts", "futures", "state"))
RULES = "move |value| value + limit * 2 + step", "move |value| (value ^ limit) - step"
SWAP_RULES = [(f"Box::new({RULES[0]}), Box::new({RULES[1]})", f"Box::new({RULES[1]}), Box::new({RULES[0]})")]


def edit(file: str, *replace: tuple[str, str]) -> Edit:
    return Edit(replace[0][1], file, replace, [], [])


def apply(talk: Talk, debugger: str) -> list[str]:
    """Patches; the notes."""
    outcome = ipbp("apply", talk.process.pid, debugger)
    assert outcome["outcome"] == "patched", json.dumps(outcome, indent=1)
    notes: list[str] = outcome["notes"]
    return notes


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_what_waits_goes_on_in_new_code(crates: CargoProject, running: Talk, debugger: str) -> None:
    assert running.ask("turn") == ". . . . <"
    assert running.ask("calls") == "4 0 grr, 2 7 cluck"
    crates.edit(
        edit(
            FUTURES,
            ("second * 10", "second * 1000"),
            ("found + 2", "found + 200"),
            ("step(20).await + more", "step(20).await * more"),
            ("push('-')", "push('=')"),
            ("    3\n}", "    33\n}"),
        ),
        # A method of its own where it had the trait's, a default that changes for nobody else.
        edit(
            BEASTS,
            (
                "0\n    }\n",
                '0\n    }\n\n    fn call(&self, times: usize) -> String {\n        "mew".repeat(times)\n    }\n',
            ),
        ),
    )
    apply(running, debugger)
    assert running.ask("turn") == "4000 . 205 80 <="
    assert running.ask("calls") == "4 0 mew, 2 7 cluck", "the table of a value that exists leads to the new method"
    crates.edit(
        edit(BEASTS, ('\n    fn call(&self, times: usize) -> String {\n        "cluck".repeat(times)\n    }\n', ""))
    )
    apply(running, debugger)
    assert running.ask("turn") == "33 <=>"
    assert running.ask("calls") == "4 0 mew, 2 7 grr", "and back to the trait's"
    assert running.close() == 0


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_state_of_every_kind_is_kept(crates: CargoProject, running: Talk, debugger: str) -> None:
    assert running.ask("statics x") == "100 x 2 6 12"
    assert running.ask("work") == "2 3"
    assert running.ask("things") == "3 0"
    assert running.ask("rules 20") == "34 16"
    crates.edit(
        edit(
            STATE,
            ("LIMIT: u64 = 10", "LIMIT: u64 = 20"),
            ("[1, 2, 3]", "[1, 5, 3]"),
            ("AtomicU64::new(100)", "AtomicU64::new(900)"),
            ("gone with", "left with"),
            (
                "static ONCE",
                "static FRESH: Mutex<u64> = Mutex::new(1000);\n"
                "static LATE: LazyLock<u64> = LazyLock::new(|| 4000);\nstatic ONCE",
            ),
            ("TABLE[1] + LIMIT", "TABLE[1] + LIMIT + *FRESH.lock().unwrap() + *LATE"),
            (
                "    static LAZY",
                "    static MORE: Cell<u64> = const { Cell::new(40) };\n"
                "    static LIST: RefCell<Vec<u64>> = RefCell::new(vec![7]);\n    static LAZY",
            ),
            (
                'format!("{} {lazy}", FIXED.get())',
                "MORE.set(MORE.get() + 1);\n    LIST.with_borrow_mut(|list| list.push(1));\n"
                '    format!("{} {lazy} {} {}", FIXED.get(), MORE.get(), LIST.with_borrow(|list| list.len()))',
            ),
        ),
        # Nothing of the layout, and yet the type has another id from now on.
        edit(BEASTS, ("    pub eggs", "    pub(crate) eggs"), (".sum();", ".sum::<u64>() * 100;")),
        edit(
            MAIN,
            ("too many", "far too many"),
            ('let _second = Told("b", log);', 'let _second = Told("B", log);\n    let _third = Told("c", log);'),
        ),
    )
    notes = apply(running, debugger)
    assert any("COUNT" in note and "not applied" in note for note in notes)
    assert running.ask("statics y") == f"101 x 3 7 {5 + 20 + 1000 + 4000}"
    assert running.ask("work") == "3 4 41 2"
    assert running.ask("things") == "500 0", "values made before are still of that type"
    assert running.ask("survive 9") == "far too many: 9 cBa"
    assert running.ask("end") == "left with 2"
    assert running.close() == 0


def test_closures_that_may_have_changed_places_go_on_as_they_were(crates: CargoProject, running: Talk) -> None:
    assert running.ask("rules 20") == "34 16"
    crates.edit(edit(BEASTS, *SWAP_RULES))
    assert any("lodge::beasts::rules" in note and "old code" in note for note in apply(running, "gdb"))
    assert running.ask("rules 20") == "34 16"
    assert running.close() == 0


def test_one_closure_of_two_that_capture_the_same_is_patched(crates: CargoProject, running: Talk) -> None:
    crates.edit(edit(BEASTS, ("limit * 2 + step", "limit * 20 + step")))
    assert not any("old code" in note for note in apply(running, "gdb"))
    assert running.ask("rules 20") == "142 16"
    assert running.close() == 0


def test_a_function_that_takes_something_else_is_new_beside_the_old_one(tmp_path: Path) -> None:
    # With this mangling its name says nothing of what it takes.
    flags = '[build]\nrustflags = ["-Csymbol-mangling-version=v0"]\n'
    project = build_cargo_project(tmp_path / "lodge", workspace="lodge", config=flags)
    talk = Talk(project.program)
    try:
        assert talk.ask("scale 3") == "6 6"
        project.edit(
            edit(
                STATE,
                ("ask(worker: &Worker)", "ask(worker: &Worker, more: &str)"),
                ("recv().unwrap()\n}\n\npub fn end", "recv().unwrap() + more\n}\n\npub fn end"),
            ),
            edit(
                MAIN,
                ("(number: u64) -> u64 {\n    number * 2", "(number: u64, by: u64) -> u64 {\n    number * by"),
                ("scale(number)),", "scale(number, 3)),"),
                ("        scale,\n    }", "        scale: |number| number,\n    }"),
                ("ask(&house.worker)", 'ask(&house.worker, "!")'),
            ),
        )
        assert any("'lodge::scale' was (u64) -> u64" in note for note in apply(talk, "gdb"))
        assert talk.ask("scale 3") == "6 9", "the pointer that exists calls the old one"
        assert talk.ask("work") == "2 3!", "so does no crate that uses it"
        assert talk.close() == 0
    finally:
        talk.kill()


LAYOUT, TABLE = "layout-changed", "method-table-changed"
WALK, ROUNDS = (f"lodge::futures::{name}::{{async_fn_env#0}}" for name in ("walk", "rounds"))
CAT = "<lodge::beasts::Cat as lodge::beasts::Beast>"
REFUSED = [
    (
        "a variable that is kept while it waits",
        FUTURES,
        [("step(start).await;", "step(start).await + start;")],
        LAYOUT,
        WALK,
    ),
    ("one more await", FUTURES, [("let second = first + 1;", "let second = first + step(1).await;")], LAYOUT, WALK),
    (
        "another thing to wait for",
        FUTURES,
        [("step(start).await;", "std::future::ready(start).await;")],
        LAYOUT,
        WALK,
    ),
    (
        "a variable that an async block captures",
        FUTURES,
        [
            ("async {\n        let found = step(5).await;", "async move {\n        let found = step(5).await + more;"),
            ("    let block", "    let more = 7;\n    let block"),
        ],
        LAYOUT,
        "lodge::futures::begin::{async_block_env#0}",
    ),
    (
        "awaits that change places",
        FUTURES,
        [("step(1).await", "step(9).await"), ("step(2).await", "step(1).await"), ("step(9).await", "step(2).await")],
        "suspension-ambiguous",
        ROUNDS,
    ),
    (
        "an await less in front, one more behind",
        FUTURES,
        [("step(2).await", "step(3).await"), ("step(1).await", "step(2).await")],
        "suspension-ambiguous",
        ROUNDS,
    ),
    (
        "methods that change places",
        BEASTS,
        [
            (
                "    fn legs(&self) -> u64;\n\n    fn arms(&self) -> u64;\n",
                "    fn arms(&self) -> u64;\n\n    fn legs(&self) -> u64;\n",
            )
        ],
        TABLE,
        CAT,
    ),
    (
        "a method in the middle of a trait",
        BEASTS,
        [
            (
                "    fn arms(&self) -> u64;\n",
                "    fn ears(&self) -> u64 {\n        2\n    }\n\n    fn arms(&self) -> u64;\n",
            )
        ],
        LAYOUT,
        f"{CAT}::{{vtable_type}}",
    ),
    (
        "a method that takes something else",
        BEASTS,
        [
            (
                'times: usize) -> String {\n        "grr".repeat(times)',
                'times: u64) -> String {\n        "grr".repeat(times as usize)',
            ),
            (
                'times: usize) -> String {\n        "cluck".repeat(times)',
                'times: u64) -> String {\n        "cluck".repeat(times as usize)',
            ),
        ],
        TABLE,
        CAT,
    ),
    (
        "a trait above a trait",
        BEASTS,
        [
            (
                "pub trait Beast {",
                "pub trait Named {\n    fn named(&self) -> u64 {\n        1\n    }\n}\n"
                "impl Named for Cat {}\nimpl Named for Hen {}\n\npub trait Beast: Named {",
            )
        ],
        LAYOUT,
        f"{CAT}::{{vtable_type}}",
    ),
    (
        "a field",
        BEASTS,
        [
            ("    pub eggs: u64,", "    pub eggs: u64,\n    pub age: u8,"),
            ("eggs: 7 }", "eggs: 7, age: 1 }"),
            ("eggs: 1 }", "eggs: 1, age: 1 }"),
            ("eggs: 2 }", "eggs: 2, age: 1 }"),
        ],
        LAYOUT,
        "lodge::beasts::Hen",
    ),
    (
        "an array of another type",
        STATE,
        [
            ("TABLE: [u64; 3] = [1, 2, 3]", "TABLE: [i64; 3] = [1, 2, 3]"),
            ("TABLE[1] + LIMIT", "TABLE[1] as u64 + LIMIT"),
        ],
        "variable-type-changed",
        "lodge::state::TABLE",
    ),
    (
        "a lazy static of another type",
        STATE,
        [
            (
                "NAMES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| Mutex::new(vec![",
                "NAMES: LazyLock<Mutex<Vec<&'static str>>> = LazyLock::new(|| Mutex::new(vec![",
            ),
            ('String::from("first")', '"first"'),
            ("names.push(name.to_string());", 'names.push("more");'),
        ],
        "variable-type-changed",
        "lodge::state::NAMES",
    ),
    (
        "a thread-local of another type",
        STATE,
        [("RefCell<Vec<u64>> = RefCell::new(vec![1, 2])", "RefCell<Vec<u32>> = RefCell::new(vec![1, 2])")],
        "variable-type-changed",
        "lodge::state::LAZY",
    ),
    (
        "a plain static of another type",
        STATE,
        [("static mut PLAIN: u64", "static mut PLAIN: i64")],
        "variable-type-changed",
        "lodge::state::PLAIN",
    ),
]


def refusals(talk: Talk) -> set[tuple[str, str | None]]:
    """Code and symbol of each reason why the sources as they are now cannot be a patch."""
    with pytest.raises(Refused) as caught:
        planned(talk)
    return {(row.code, row.symbol) for row in caught.value.refusals}


def test_what_lives_is_not_misread_after_a_build(tmp_path: Path) -> None:
    # The objects of the program that runs are gone then: it is compared with what is in memory.
    project = build_cargo_project(tmp_path / "lodge", workspace="lodge")
    talk = Talk(project.program)
    rows = {name: (file, replace, code, symbol) for name, file, replace, code, symbol in REFUSED}
    try:
        for name in ("methods that change places", "awaits that change places"):
            file, replace, code, symbol = rows[name]
            project.edit(edit(file, *replace))
            project.cargo("build")
            assert (code, symbol) in refusals(talk)
            project.restore()
        project.edit(edit(BEASTS, ('"grr"', '"hiss"')))
        project.cargo("build")
        apply(talk, "gdb")
        assert talk.ask("calls") == "4 0 hiss, 2 7 cluck"
        assert talk.close() == 0
    finally:
        talk.kill()


def test_what_lives_is_not_misread(crates: CargoProject, running: Talk) -> None:
    for name, file, replace, code, symbol in REFUSED:
        crates.edit(edit(file, *replace))
        found = refusals(running)
        assert any(row[0] == code and str(row[1]).startswith(symbol) for row in found), (name, found)
        crates.restore()
