"""Small cargo workspaces by chance: a program of two libraries, whose state can be written out and read back.

`low` and `high` are libraries, `app` is the program; each may call those before it. `low` has what all share: generic
functions, a trait and the types that implement it, of which objects live across edits behind `dyn`, an enum, a guard
with a destructor. State is in statics of files and of functions: atomics, locks, cells that are filled once, and
thread-local ones, seen from two threads. Panics are thrown, caught, passed on. `base`, which no edit touches, reads
the commands (see `c_language`).

All arithmetic is `Wrapping<u32>`; an index out of bounds is a panic like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from differential.c_language import WORDS as _ALL_WORDS
from differential.edits import edit, replace_one
from differential.model import Edit, Function, Program, Variable

WORDS = tuple(word for word in _ALL_WORDS if "%" not in word)
CRATES = ("low", "high", "app")
_NAMES = ("total", "table", "mode", "limit", "mood")
_CALL = re.compile(r"\bf\d+\(|OPS\[")

BASE = r"""
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{stdin, BufRead, Write};
use std::num::Wrapping;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Mutex;

pub type W = Wrapping<u32>;
pub const fn w(value: u32) -> W {
    Wrapping(value)
}
pub struct Trouble(pub u32, pub String);

static MODE: AtomicU32 = AtomicU32::new(0);
static PAUSE_IN: AtomicU32 = AtomicU32::new(0);
static KNOWN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
thread_local! { static WHOSE: Cell<&'static str> = const { Cell::new("") }; }

pub fn mode() -> u32 {
    MODE.load(Relaxed)
}
pub fn io_text(name: &str, value: &str) -> String {
    let key = format!("{}{}", WHOSE.get(), name);
    if mode() == 1 {
        println!("= {key} .{value}");
        return value.to_string();
    }
    match KNOWN.lock().unwrap().get(&key) {
        Some(text) => text[1..].to_string(),
        None => value.to_string(),
    }
}
pub fn io(name: &str, value: u32) -> u32 {
    io_text(name, &value.to_string()).parse().unwrap()
}
fn line() -> Option<String> {
    let mut text = String::new();
    match stdin().lock().read_line(&mut text) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(text.trim_end_matches('\n').to_string()),
    }
}
fn done() {
    println!(".");
    std::io::stdout().flush().unwrap();
}
pub fn say(text: &str) {
    println!("{text}");
    let left = PAUSE_IN.load(Relaxed);
    if left > 0 {
        PAUSE_IN.store(left - 1, Relaxed);
        if left == 1 {
            println!("(paused)");
            done();
            line();
        }
    }
}
fn work(tasks: Receiver<Box<dyn FnOnce() + Send>>, ended: SyncSender<()>) {
    WHOSE.set("second/");
    while let Ok(task) = tasks.recv() {
        task();
        ended.send(()).unwrap();
    }
}
pub fn serve(entries: [(&'static str, fn(W) -> W); 3], walk: fn()) {
    std::panic::set_hook(Box::new(|_| {}));
    let (give, tasks) = sync_channel::<Box<dyn FnOnce() + Send>>(1);
    let (tell, ended) = sync_channel(1);
    std::thread::spawn(move || work(tasks, tell));
    let in_second = |task: Box<dyn FnOnce() + Send>| {
        give.send(task).unwrap();
        ended.recv().unwrap();
    };
    while let Some(text) = line() {
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        match words[..] {
            ["run", value] => {
                let value = w(value.parse().unwrap());
                for (name, entry) in &entries[..2] {
                    println!("{name} {}", entry(value));
                }
                let (name, entry) = entries[2];
                in_second(Box::new(move || println!("{name} {}", entry(value))));
                PAUSE_IN.store(0, Relaxed);
            }
            ["set", name, value] => {
                KNOWN.lock().unwrap().insert(name.to_string(), value.to_string());
                continue;
            }
            ["pause", value] => {
                PAUSE_IN.store(value.parse().unwrap(), Relaxed);
                continue;
            }
            ["go"] => {}
            _ => {
                MODE.store(if words[0] == "dump" { 1 } else { 2 }, Relaxed);
                walk();
                in_second(Box::new(walk));
                MODE.store(0, Relaxed);
            }
        }
        done();
    }
}
"""

USES = """#![allow(warnings)]
use base::{io, io_text, mode, say, w, Trouble, W};
use std::cell::Cell;
use std::num::Wrapping;
use std::panic::panic_any;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock};
"""

Maker = Callable[[], str]


class Rust:
    """Implements `Generator` and `Language`. Variables are a "number" (an atomic), a "row" (a locked Vec), a "text" (a
    locked String), a "once" (a OnceLock), a "thread" (thread-local, constant) or a "lazy" (thread-local, filled at the
    first use)."""

    files: Sequence[str] = CRATES
    can_pause = True
    local_names: Sequence[str] = ("COUNT", "SEEN", "LAST", "STATE")
    literal = re.compile(r"\bw\(\d+\)")
    constant_in_code = re.compile(r"(?<=[-+*^] )w\(\d+\)")
    operator = re.compile(r"(?<!\|) [-+*^] (?!\|)")
    operators = "+-*^|"
    fixed = re.compile(r"x & w\(7\)|dyn|make_shape|Guard|f64|const fn")
    kinds: Sequence[str] = ("number", "number", "number", "row", "text", "once", "thread", "lazy")

    @property
    def own_edits(self) -> Sequence[tuple[str, Edit]]:
        return (("inlining", self._attribute), *[("type", self._type)] * 3)

    def edit(self, rng: Random, program: Program) -> tuple[Program, list[str]]:
        return edit(rng, program, self)

    def number(self, value: int) -> str:
        return f"w({value})"

    def may_move(self, program: Program, function: Function, file: int) -> bool:
        text = " ".join(function.statements)
        if re.search(r"\b(WEIGHTS|NAMES|OPS|zoo)\b", text) or any(
            re.search(rf"\b{v.name}\b", text) for v in program.variables[function.file]
        ):
            return False
        callees = [f for f in program.functions if f is not function and re.search(rf"\b{f.name}\(", text)]
        callers = [f for f in program.functions if any(re.search(rf"\b{function.name}\(", s) for s in f.statements)]
        return all(f.file <= file for f in callees) and all(f.file >= file for f in callers)

    def generate(self, rng: Random) -> Program:
        program = Program([], [[], [], []], [[], [], []], [])
        total = rng.randint(6, 9)
        for index in range(total):
            program.functions.append(self.function(rng, f"f{index}", index >= total - 3, float(index)))
        for leaf, file in zip((f for f in program.functions if f.is_leaf), (0, 1, 2), strict=True):
            leaf.file, leaf.is_static = file, False
        for file in range(3):
            for name in rng.sample(_NAMES, rng.randint(1, 3)):
                program.variables[file].append(self.variable(rng, name.upper(), is_local=False))
            for name in ("weights", "names", "ops"):
                program.constants[file].append(self.constant(rng, program, file, name))
        program.shared = _shared(rng)
        for function in program.functions:
            for name in rng.sample(list(self.local_names), rng.choice((0, 0, 1, 1, 2))):
                function.variables.append(self.variable(rng, name, is_local=True))
            for _ in range(rng.randint(1, 6)):
                function.statements.append(self.statement(rng, program, function))
        return program

    def function(self, rng: Random, name: str, is_leaf: bool, rank: float) -> Function:
        attributes = rng.choice(("", "", "#[inline(never)]\n", "#[inline(never)]\n", "#[inline]\n"))
        return Function(name, rng.randrange(3), rng.random() < 0.4, attributes, is_leaf, rank)

    def variable(self, rng: Random, name: str, is_local: bool) -> Variable:
        return Variable(name.upper(), rng.choice(list(self.kinds)), "", rng.randint(2, 9), rng.randint(0, 99))

    def constant(self, rng: Random, program: Program, file: int, name: str) -> str:
        if name == "weights":
            return f"static WEIGHTS: [u32; 8] = [{', '.join(str(rng.randint(0, 999)) for _ in range(8))}];"
        if name == "names":
            return f"static NAMES: [&str; 4] = [{', '.join(_quoted(rng.choice(WORDS)) for _ in range(4))}];"
        leaves = self._leaves(program, file)
        return f"static OPS: [fn(W) -> W; 4] = [{', '.join(rng.choice(leaves) for _ in range(4))}];"

    def _leaves(self, program: Program, file: int) -> list[str]:
        named = set(program.leaves(file))
        return [f.name for f in program.functions if f.name in named and f.file <= file]

    # Variables.

    def declare(self, variable: Variable) -> str:
        name, value = variable.name, variable.value
        if variable.kind == "row":
            return f"static {name}: Mutex<Vec<u32>> = Mutex::new(Vec::new());"
        if variable.kind == "text":
            return f"static {name}: Mutex<String> = Mutex::new(String::new());"
        if variable.kind == "once":
            return f"static {name}: OnceLock<AtomicU32> = OnceLock::new();"
        if variable.kind == "thread":
            return f"thread_local! {{ static {name}: Cell<u32> = const {{ Cell::new({value}) }}; }}"
        if variable.kind == "lazy":
            return f"thread_local! {{ static {name}: Cell<u32> = Cell::new(start(w({value})).0); }}"
        return f"static {name}: AtomicU32 = AtomicU32::new({value});"

    def show(self, variable: Variable, key: str) -> str:
        """Statements that hand the variable to `io`."""
        name = variable.name
        if variable.kind == "row":
            return (
                f'{{ let mut row = locked(&{name}); let size = io("{key}.size", row.len() as u32); '
                "row.resize(size as usize, 0); "
                f'for i in 0..row.len() {{ row[i] = io(&format!("{key}.{{i}}"), row[i]); }} }}'
            )
        if variable.kind == "text":
            return f'{{ let mut text = locked(&{name}); *text = io_text("{key}", &text); }}'
        if variable.kind == "once":
            cell = f"{name}.get_or_init(|| AtomicU32::new(start(w({variable.value})).0))"
            return f'{{ let cell = {cell}; cell.store(io("{key}", cell.load(Relaxed)), Relaxed); }}'
        if variable.kind in ("thread", "lazy"):
            return f'{name}.set(io("{key}", {name}.get()));'
        return f'{name}.store(io("{key}", {name}.load(Relaxed)), Relaxed);'

    def use(self, rng: Random, variable: Variable, expression: str) -> str:
        name = variable.name
        if variable.kind == "row":
            return rng.choice(
                (
                    f"{{ let mut row = locked(&{name}); if row.len() < 20 {{ row.push(({expression}).0); }} "
                    f"else {{ row.clear(); }} acc += w(row.iter().copied().max().unwrap_or(1)); }}",
                    f"for one in locked(&{name}).iter_mut() {{ *one = (w(*one) + {expression}).0; }}",
                )
            )
        if variable.kind == "text":
            return rng.choice(
                (
                    f"{{ let mut text = locked(&{name}); text.push((b'a' + (acc.0 % 26) as u8) as char); "
                    f"if text.len() > 40 {{ text.clear(); }} acc += w(text.len() as u32); }}",
                    f"{{ let text = locked(&{name}).clone(); say(&text); }}",
                )
            )
        if variable.kind == "once":
            cell = f"{name}.get_or_init(|| AtomicU32::new(start(w({variable.value})).0))"
            return f"acc ^= w({cell}.fetch_add(({expression}).0, Relaxed));"
        if variable.kind in ("thread", "lazy"):
            return rng.choice(
                (
                    f"{name}.set((w({name}.get()) + {expression}).0); acc ^= w({name}.get());",
                    f"acc += w({name}.get()); {name}.set(acc.0);",
                )
            )
        return rng.choice(
            (
                f"acc ^= w({name}.fetch_add(({expression}).0, Relaxed));",
                f"acc += w({name}.load(Relaxed)); {name}.store(acc.0, Relaxed);",
            )
        )

    # Code.

    def expression(self, rng: Random, program: Program, function: Function, depth: int = 0) -> str:
        choices: list[Maker] = [
            lambda: f"w({rng.randint(0, 5000)})",
            lambda: "acc",
            lambda: "x",
            lambda: "FACTOR",
            lambda: f"mix(acc, w({rng.randint(1, 9)}))",
            lambda: f"w(WEIGHTS[(acc.0 & {rng.choice((3, 7))}) as usize])",
        ]
        if depth < 2:

            def both() -> str:
                left, right = (self.expression(rng, program, function, depth + 1) for _ in range(2))
                return f"({left} {rng.choice('+-*^|&')} {right})"

            choices += [both] * 3
        return rng.choice(choices)()

    def statement(self, rng: Random, program: Program, function: Function) -> str:
        def e() -> str:
            return self.expression(rng, program, function)

        def n(most: int = 99) -> str:
            return f"w({rng.randint(1, most)})"

        def word() -> str:
            return rng.choice(WORDS)

        tag = f"{function.name}_{program.number()}"
        made: list[Maker] = [
            *_plain(rng, tag, n, e, word),
            *_typed(rng, tag, n, e, word),
        ]
        own = [*function.variables, *program.variables[function.file]]
        if own:
            made += [lambda: self.use(rng, rng.choice(own), e())] * 6
        return rng.choice(made + self._calls(rng, program, function, n, e))()

    def _calls(self, rng: Random, program: Program, function: Function, n: Callable[..., str], e: Maker) -> list[Maker]:
        later = [
            f.name
            for f in program.functions
            if f.rank > function.rank and (f.file == function.file or (not f.is_static and f.file < function.file))
        ]
        calls = sum(_CALL.search(statement) is not None for statement in function.statements)
        if function.is_leaf and not calls:
            return [lambda: f"if (x & w(7)) != w(0) {{ acc += {function.name}((x & w(7)) - w(1)) * {n()}; }}"]
        if function.is_leaf or calls >= 3:
            return []
        made: list[Maker] = [lambda: f"acc ^= OPS[(acc.0 & 3) as usize](acc & {n(255)});"]
        if later:
            made += [lambda: f"acc {rng.choice('+^')}= {rng.choice(later)}({rng.choice((e(), n()))});"] * 2
        plain = list(made)

        def caught() -> str:
            return f'acc ^= attempt("{function.name}", acc, |mut acc: W| {{ {rng.choice(plain)()} acc }});'

        return made + [caught] * 3

    # Text.

    def render(self, program: Program) -> dict[str, str]:
        texts = {
            "Cargo.toml": '[workspace]\nresolver = "2"\nmembers = ["base", "low", "high", "app"]\n\n' + PROFILE,
            "base/Cargo.toml": _manifest("base", ()),
            "base/src/lib.rs": BASE,
            "low/src/shared.rs": "\n".join([USES, *program.shared, ""]),
            "app/src/main.rs": 'mod work;\nfn main() {\n    base::serve([("low", low::entry_low), '
            '("high", high::entry_high), ("app", work::entry_app)], work::walk_app);\n}\n',
        }
        for file, crate in enumerate(CRATES):
            texts[f"{crate}/Cargo.toml"] = _manifest(crate, ("base", *CRATES[:file]))
            path = "app/src/work.rs" if crate == "app" else f"{crate}/src/lib.rs"
            text = self._render_file(program, file, crate)
            texts[path] = _with_extras(text.replace("#![allow(warnings)]\n", "") if crate == "app" else text, program)
        return texts

    def _render_file(self, program: Program, file: int, crate: str) -> str:
        mine = [f for f in program.functions if f.file == file]
        known = "pub mod shared;\nuse shared::*;" if crate == "low" else "use low::shared::*;\nuse low::*;"
        lines = [USES, known, *(["use high::*;"] if crate == "app" else []), *program.constants[file]]
        lines += ["fn zoo() -> MutexGuard<'static, Zoo> {", "    static ZOO: OnceLock<Mutex<Zoo>> = OnceLock::new();"]
        lines += ["    locked(ZOO.get_or_init(|| Mutex::new(some_shapes())))", "}"]
        lines += [self.declare(v) for v in program.variables[file]]
        lines += [self._render_function(f) for f in mine]
        calls = [
            f'    acc ^= attempt("{crate}", acc, |acc: W| {f.name}(x + w({i})));'
            for i, f in enumerate(mine)
            if not f.is_leaf or i % 2
        ]
        lines += [f"pub fn entry_{crate}(x: W) -> W {{", "    let mut acc = x;", *calls, "    acc", "}"]
        shows = ["    " + self.show(v, f"{crate}:{v.name}") for v in program.variables[file]]
        shows += [f'    show_zoo("{crate}", &mut zoo());']
        walks = [f"    {f.name}(w(0));" for f in mine if f.variables]
        before = {"low": ["    ticks(w(0));"], "high": ["    low::walk_low();"], "app": ["    high::walk_high();"]}
        return "\n".join([*lines, f"pub fn walk_{crate}() {{", *before[crate], *shows, *walks, "}", ""])

    def _render_function(self, function: Function) -> str:
        extra = "" if function.extra is None else "extra: W, "
        head = f"{function.attributes}{'' if function.is_static else 'pub '}fn {function.name}({extra}x: W) -> W {{"
        lines = [head, *("    " + self.declare(v) for v in function.variables)]
        if function.variables:
            shows = " ".join(self.show(v, f"{function.name}.{v.name}") for v in function.variables)
            lines.append(f"    if mode() != 0 {{ {shows} return w(0); }}")
        acc = "x * w(3)" if function.extra is None else "x * w(3) + extra"
        return "\n".join(
            [*lines, f"    let mut acc = {acc};", *("    " + s for s in function.statements), "    acc", "}"]
        )

    # Edits of Rust alone.

    def _attribute(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        function.attributes = "" if function.attributes else "#[inline(never)]\n"
        return function.name

    def _type(self, rng: Random, program: Program) -> str:
        """What a method, a generic function or a match of the shared types does."""
        rows = [row for row, text in enumerate(program.shared) if self.literal.search(text)]
        row = rng.choice([row for row in rows if "make_shape" not in program.shared[row]])
        program.shared[row] = replace_one(rng, self.literal, program.shared[row], f"w({rng.randint(1, 60)})")
        return program.shared[row].partition("\n")[0]


PROFILE = "[profile.dev]\nopt-level = OPT_LEVEL\n"


def _plain(rng: Random, tag: str, n: Callable[..., str], e: Maker, word: Maker) -> list[Maker]:
    cases = rng.randint(4, 8)
    table = ", ".join(str(rng.randint(0, 999)) for _ in range(cases))
    return [
        lambda: f"acc = acc {rng.choice('+-*^|&')} {e()};",
        lambda: f"if (acc & {n()}) != w(0) {{ acc += {e()}; }} else {{ acc ^= {e()}; }}",
        lambda: f"for i in 0..{rng.randint(1, 9)} {{ acc = acc * {n()} + (w(i) ^ {e()}); }}",
        lambda: (
            f"match acc.0 % {cases + 2} {{ "
            + " ".join(f"{i} => acc {rng.choice('+-*^')}= {e()}," for i in range(cases))
            + f" _ => acc ^= {n()}, }}"
        ),
        lambda: (
            f"say(match acc.0 % {cases} {{ "
            + " ".join(f'{i} => "{tag} {word()}",' for i in range(cases - 1))
            + f' _ => "{word()}", }});'
        ),
        lambda: f'say(&format!("{tag} {{}} {word()}", {e()}));',
        lambda: f"{{ static T: [u32; {cases}] = [{table}]; acc += w(T[(acc.0 % {cases}) as usize]); }}",
        lambda: f"{{ let t = [{table}]; acc += w(t[(acc.0 % {cases + rng.choice((0, 0, 1))}) as usize]); }}",
        lambda: f"acc += w((f64::from(acc.0 & 255) * 1.5 / {rng.randint(2, 9)}.25 + 3.0) as u32);",
        lambda: f'acc += w("{rng.randint(0, 9999)}".parse::<u32>().unwrap_or(7));',
        lambda: (
            f'{{ let mut s = String::from("{word()}"); s += &acc.to_string(); acc += w(s.len() as u32); say(&s); }}'
        ),
        lambda: f"say(NAMES[(acc.0 & 3) as usize]); acc ^= {n()};",
        lambda: f"acc += ticks({e()});",
    ]


def _typed(rng: Random, tag: str, n: Callable[..., str], e: Maker, word: Maker) -> list[Maker]:
    def count() -> int:
        return rng.randint(1, 9)

    return [
        lambda: f"acc += times({count()}, |i| acc ^ i * {n()} ^ {e()});",
        lambda: f"{{ let base = acc; acc += times({count()}, move |i| base + i * {n()}); }}",
        lambda: (
            f"{{ let step: Box<dyn Fn(W) -> W> = if acc.0 % 2 == 0 {{ Box::new(move |v| v * {n()} + acc) }} "
            f"else {{ Box::new(|v| v ^ {n()}) }}; acc = step(acc); }}"
        ),
        lambda: (
            f"acc += (0..{count()}u32).map(|i| w(i) * acc + {n()}).filter(|v| v.0 % {rng.randint(2, 5)} != 1)"
            f".fold(w(0), |a, b| a ^ b);"
        ),
        lambda: (
            f"{{ let mut v: Vec<u32> = (0..{count()}u32).map(|i| (acc ^ w(i) * {n()}).0).collect(); v.sort(); "
            f"acc += w(v.iter().rev().copied().take(2).fold(0, |a, b| a ^ b)); }}"
        ),
        lambda: f"acc += tally((acc.0 as u8, {e()}));",
        lambda: "acc += tally(acc.0 as u16);",
        lambda: f"acc += weigh(&decide(acc ^ {n()}));",
        lambda: f"if let Move::Turn {{ by, left }} = decide(acc) {{ acc += if left {{ by }} else {{ {e()} }}; }}",
        lambda: f'if acc.0 % {rng.randint(3, 9)} == 1 {{ panic_any(Trouble(acc.0 & 255, "{tag} {word()}".into())); }}',
        lambda: f'if acc.0 % {rng.randint(3, 9)} == 2 {{ panic!("{tag} {{}} {word()}", acc.0 & 255); }}',
        lambda: f'{{ let _guard = Guard("{tag}", acc & {n(15)}); acc += {e()}; }}',
        lambda: (
            f'{{ let r: Result<W, String> = (|| {{ let v: u32 = if acc.0 % 3 == 1 {{ "x" }} else {{ "7" }}'
            f'.parse::<u32>().map_err(|_| "{word()}".to_string())?; Ok(w(v) * {n()}) }})(); '
            f"match r {{ Ok(v) => acc += v, Err(t) => {{ say(&t); acc ^= {n()}; }} }} }}"
        ),
        lambda: f"for one in zoo().iter() {{ acc ^= one.area({n()}); }}",
        lambda: '{ let names: Vec<String> = zoo().iter().map(|one| one.name()).collect(); say(&names.join(",")); }',
        lambda: f"{{ let mut all = zoo(); let at = acc.0 as usize % all.len(); acc += all[at].touch({n()}); }}",
        lambda: f"{{ let mut one = make_shape({e()}, acc, {n()}); acc += one.touch({n()}); }}",
    ]


def _shared(rng: Random) -> list[str]:
    def n() -> str:
        return f"w({rng.randint(1, 60)})"

    def shape(name: str) -> str:
        bodies = [
            f"    fn area(&self, x: W) -> W {{\n        w(self.a) * x + {n()}\n    }}",
            "    fn parts(&mut self) -> [&mut u32; 2] {\n        [&mut self.a, &mut self.b]\n    }",
        ]
        if rng.random() < 0.6:
            bodies.append(f'    fn name(&self) -> String {{\n        "{name} {rng.choice(WORDS)}".to_string()\n    }}')
        if rng.random() < 0.6:
            bodies.append(
                f"    fn touch(&mut self, x: W) -> W {{\n        self.b = (w(self.b) + x * {n()}).0;\n"
                f"        self.area(x) ^ {n()}\n    }}"
            )
        return (
            f"pub struct {name} {{\n    a: u32,\n    b: u32,\n}}\nimpl Shape for {name} {{\n"
            + "\n".join(bodies)
            + "\n}"
        )

    return [
        f"pub const FACTOR: W = {n()};",
        f"#[inline]\npub fn mix(a: W, b: W) -> W {{\n    let a = a + b * {n()};\n    a ^ (a / w(8)) ^ {n()}\n}}",
        f"pub fn start(x: W) -> W {{\n    x * {n()} + {n()}\n}}",
        "pub fn ticks(x: W) -> W {\n    static COUNT: AtomicU32 = AtomicU32::new(3);\n"
        '    if mode() != 0 {\n        COUNT.store(io("ticks.count", COUNT.load(Relaxed)), Relaxed);\n'
        "        return w(0);\n    }\n"
        f"    let seen = w(COUNT.load(Relaxed)) + (x & {n()});\n    COUNT.store(seen.0, Relaxed);\n"
        f"    seen * {n()}\n}}",
        "pub fn times<F: Fn(W) -> W>(count: u32, f: F) -> W {\n    let mut sum = w(0);\n"
        f"    for i in 0..count {{\n        sum = sum * {n()} + f(w(i));\n    }}\n    sum\n}}",
        "pub trait Weight {\n    fn weight(&self) -> W;\n}",
        f"impl Weight for u16 {{\n    fn weight(&self) -> W {{\n        w(u32::from(*self)) * {n()}\n    }}\n}}",
        "impl Weight for (u8, W) {\n    fn weight(&self) -> W {\n"
        f"        w(u32::from(self.0)) ^ self.1 * {n()}\n    }}\n}}",
        f"pub fn tally<T: Weight>(one: T) -> W {{\n    one.weight() * {n()} + {n()}\n}}",
        "pub enum Move {\n    Step(W),\n    Turn { by: W, left: bool },\n    Stay,\n}",
        "pub fn decide(x: W) -> Move {\n    match x.0 % 4 {\n        0 => Move::Stay,\n"
        f"        1 => Move::Step(x * {n()}),\n"
        f"        _ => Move::Turn {{ by: x ^ {n()}, left: x.0 % 3 == 0 }},\n    }}\n}}",
        "pub fn weigh(one: &Move) -> W {\n    match one {\n"
        f"        Move::Step(far) => *far + {n()},\n        Move::Turn {{ by, left: true }} => *by * {n()},\n"
        f"        Move::Turn {{ by, .. }} => *by ^ {n()},\n        Move::Stay => {n()},\n    }}\n}}",
        "pub struct Guard(pub &'static str, pub W);\nimpl Drop for Guard {\n    fn drop(&mut self) {\n"
        f'        say(&format!("left {{}} {{}}", self.0, self.1 * {n()}));\n    }}\n}}',
        "pub trait Shape: Send {\n    fn area(&self, x: W) -> W;\n    fn parts(&mut self) -> [&mut u32; 2];\n"
        '    fn name(&self) -> String {\n        "shape".to_string()\n    }\n'
        f"    fn touch(&mut self, x: W) -> W {{\n        self.area(x * {n()})\n    }}\n}}",
        shape("Round"),
        shape("Flat"),
        shape("Steep"),
        "pub type Zoo = Vec<Box<dyn Shape>>;",
        "pub fn make_shape(kind: W, a: W, b: W) -> Box<dyn Shape> {\n    let (a, b) = (a.0, b.0);\n"
        "    match kind.0 % 3 {\n        0 => Box::new(Round { a, b }),\n        1 => Box::new(Flat { a, b }),\n"
        "        _ => Box::new(Steep { a, b }),\n    }\n}",
        "pub fn some_shapes() -> Zoo {\n    (0..4).map(|i| make_shape(w(i), w(i), w(7 * i))).collect()\n}",
        "pub fn show_zoo(key: &str, zoo: &mut Zoo) {\n    for (i, one) in zoo.iter_mut().enumerate() {\n"
        "        for (j, part) in one.parts().into_iter().enumerate() {\n"
        '            *part = io(&format!("{key}.zoo.{i}.{j}"), *part);\n        }\n    }\n}',
        "pub fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {\n"
        "    lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner())\n}",
        "pub fn attempt<F: FnOnce(W) -> W>(name: &str, x: W, f: F) -> W {\n"
        "    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(x))) {\n        Ok(value) => value,\n"
        "        Err(why) => {\n            if let Some(trouble) = why.downcast_ref::<Trouble>() {\n"
        '                say(&format!("{name} caught {} {}", trouble.0, trouble.1));\n                w(trouble.0)\n'
        "            } else if let Some(text) = why.downcast_ref::<String>() {\n"
        f'                say(&format!("{{name}} panic {{text}}"));\n                {n()}\n'
        f"            }} else {{\n                {n()}\n            }}\n        }}\n    }}\n}}",
    ]


def _manifest(name: str, needs: Sequence[str]) -> str:
    rows = "".join(f'{need} = {{ path = "../{need}" }}\n' for need in needs)
    return f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n\n[dependencies]\n{rows}'


def _quoted(text: str) -> str:
    return f'"{text}"'


def _with_extras(text: str, program: Program) -> str:
    """Calls with the argument that their function takes in addition."""
    for function in program.functions:
        if function.extra is not None:
            text = re.sub(rf"\b{function.name}\((?!extra: )", f"{function.name}(w({function.extra}), ", text)
    return text
