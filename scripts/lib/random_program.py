"""Small C programs by chance, and edits of them by chance, whose state can be written out and read back.

A program has two files, a header and a main that no edit touches. Its state is in named variables: static ones of a
file, static ones of a function (of few names, so that several functions have one of the same name), global ones.
Every function that has some shows them to `io` when `io_mode` is set, by value, so that the compiler may do with them
what it likes. A freshly built edited program is thus brought to the state of any running one: what exists under the
same name gets its value, what is new keeps its initial one.

Nothing is undefined and everything ends: arithmetic is unsigned, functions call later ones only, recursion counts down.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

FILES = ("a.c", "b.c")
_LOCAL_NAMES = ("count", "seen", "last", "state")
_WORDS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "omega",
    "the quick brown fox",
    "",
    "x",
    "%%",
    "lorem ipsum dolor sit amet",
)
_LITERAL = re.compile(r"\b\d+u\b")
_OPERATOR = re.compile(r"(?<!\[acc) [-+*^|&] ")
_CONSTANT = re.compile(r"(?<=[-+*^] )\d+u|(?<=\(acc, )\d+u")
_CALL = re.compile(r"\bf\d+\(|ops\[")
_FIXED = re.compile(r"x & 7u|double")  # recursion that must end; operators that are not for these types

MAIN = r"""
#include <stdarg.h>
int io_mode;
static struct { char name[64]; unsigned long value; } known[400];
static int number_known;
unsigned long io(const char *name, unsigned long value)
{
    if (io_mode == 1) { printf("= %s %lu\n", name, value); return value; }
    for (int i = 0; i < number_known; i++)
        if (!strcmp(known[i].name, name)) return known[i].value;
    return value;
}
void say(const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    vprintf(format, rest);
    va_end(rest);
}
void fail(const char *text) { printf("fail %s\n", text); }
int main(void)
{
    static char line[200];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long value;
        char name[64];
        if (sscanf(line, "run %lu", &value) == 1) {
            printf("a %u\n", entry_a((u32)value));
            printf("b %u\n", entry_b((u32)value));
        } else if (sscanf(line, "set %63s %lu", name, &value) == 2) {
            strcpy(known[number_known].name, name);
            known[number_known++].value = value;
            continue;
        } else {
            io_mode = line[0] == 'd' ? 1 : 2;
            walk_a();
            walk_b();
            io_mode = 0;
        }
        printf(".\n");
        fflush(stdout);
    }
    return 0;
}
"""

HEAD = """
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned int u32;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned long u64;
typedef u32 (*operation)(u32);
struct pair { u32 left, right; u8 small; };
extern int io_mode;
unsigned long io(const char *name, unsigned long value);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char *text) __attribute__((cold, noinline));
u32 entry_a(u32), entry_b(u32);
void walk_a(void), walk_b(void);
"""


@dataclass
class Variable:
    """State. `kind`: "number" (of `type`), "array" (`size` elements), "struct" (a pair), "toggle" (zero or one
    constant), "function" (a pointer to one of the leaves)."""

    name: str
    kind: str
    type: str
    size: int
    value: int
    is_static: bool = True

    def declare(self, leaves: list[str]) -> str:
        prefix = "static " if self.is_static else ""
        if self.kind == "array":
            values = ", ".join(f"{self.value + i}u" for i in range(self.size)) if self.value else "0"
            return f"{prefix}{self.type} {self.name}[{self.size}] = {{{values}}};"
        if self.kind == "struct":
            return f"{prefix}struct pair {self.name} = {{{self.value}u, {self.value // 2}u, 1u}};"
        if self.kind == "function":
            return f"{prefix}operation {self.name} = {leaves[self.value % len(leaves)]};"
        if self.kind == "toggle":
            return f"{prefix}u32 {self.name};"
        return f"{prefix}{self.type} {self.name} = {self.value}u;"

    def show(self, key: str, leaves: list[str]) -> str:
        """Statements that hand the variable to `io`."""
        name = self.name
        if self.kind == "array":
            return " ".join(f'{name}[{i}] = ({self.type})io({key}[{i}]", {name}[{i}]);' for i in range(self.size))
        if self.kind == "struct":
            return " ".join(
                f'{name}.{part} = ({t})io({key}.{part}", {name}.{part});'
                for part, t in (("left", "u32"), ("right", "u32"), ("small", "u8"))
            )
        if self.kind == "toggle":
            return f'{name} = io({key}", {name} != 0) ? {self.size}u : 0u;'
        if self.kind == "function":
            is_one = " : ".join(f"{name} == {leaf} ? {leaf[1:]}u" for leaf in leaves)
            chain = " ".join(f"else if (chosen == {leaf[1:]}u) {name} = {leaf};" for leaf in leaves)
            return f'{{ u64 chosen = io({key}", {is_one} : 99u); if (chosen == 99u) {{}} {chain} }}'
        return f'{name} = ({self.type})io({key}", {name});'

    def use(self, rng: Random, expression: str) -> str:
        """A statement that reads or changes it."""
        name, n = self.name, self.name
        if self.kind == "array":
            return f"{name}[acc % {self.size}u] += {expression}; acc ^= {name}[x % {self.size}u];"
        if self.kind == "struct":
            return rng.choice(
                (
                    f"{n}.left += {expression}; acc ^= {n}.right + {n}.left;",
                    f"{n}.right ^= {expression}; {n}.small++; acc += {n}.small;",
                    f"acc += pair_sum(&{n});",
                )
            )
        if self.kind == "toggle":
            return rng.choice(
                (f"if (acc & 1u) {n} = {self.size}u; acc += {n};", f"if (acc & 4u) {n} = 0u; else acc ^= {n};")
            )
        if self.kind == "function":
            return f"acc ^= {n}(acc & {rng.randint(1, 255)}u);"
        return rng.choice(
            (f"{n} += {expression}; acc ^= {n};", f"acc += {n}; {n}++;", f"{n} = ({self.type})(acc ^ {n});")
        )


@dataclass
class Function:
    name: str
    file: int
    is_static: bool
    attributes: str
    is_leaf: bool
    rank: float  # functions call those of a higher rank only
    variables: list[Variable] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


@dataclass
class Program:
    functions: list[Function]
    variables: list[list[Variable]]  # by file
    constants: list[list[str]]  # by file: definitions of read-only tables
    shared: list[str]  # definitions in the header
    next_number: int = 0

    def leaves(self, file: int) -> list[str]:
        """Functions without calls that this file may name."""
        return [f.name for f in self.functions if f.is_leaf and (f.file == file or not f.is_static)]

    def number(self) -> int:
        self.next_number += 1
        return self.next_number


def generate(rng: Random) -> Program:
    """A program."""
    program = Program([], [[], []], [[], []], [])
    total = rng.randint(6, 12)
    for index in range(total):
        program.functions.append(_function(rng, f"f{index}", index >= total - 4, float(index)))
    for file in range(2):
        fixed = [f for f in program.functions if f.is_leaf][file]
        fixed.file, fixed.is_static = file, False
        for name in rng.sample(("total", "table", "mode", "limit", "mood", "hook"), rng.randint(2, 5)):
            program.variables[file].append(_variable(rng, name, may_point=True))
        for name in ("weights", "names", "ops"):
            program.constants[file].append(_constant(rng, program, file, name))
    program.shared = _shared(rng)
    for function in program.functions:
        for name in rng.sample(_LOCAL_NAMES, rng.choice((0, 0, 1, 1, 2, 3))):
            function.variables.append(_variable(rng, name, may_point=False))
        for _ in range(rng.randint(2, 8)):
            function.statements.append(_statement(rng, program, function))
    return program


def _function(rng: Random, name: str, is_leaf: bool, rank: float) -> Function:
    attributes = rng.choice(("", "", "__attribute__((noinline)) ", "__attribute__((noinline)) "))
    return Function(name, rng.randrange(2), rng.random() < 0.6, attributes, is_leaf, rank)


def _variable(rng: Random, name: str, may_point: bool) -> Variable:
    kinds = ["number", "number", "number", "array", "struct", "toggle"] + ["function"] * (may_point and name == "hook")
    kind = "function" if name == "hook" and may_point else rng.choice(kinds)
    type_ = rng.choice(("u32", "u32", "u8", "u16", "u64")) if kind in ("number", "array") else "u32"
    return Variable(name, kind, type_, rng.randint(2, 9), rng.choice((0, 0, 1, rng.randint(2, 99))))


def _constant(rng: Random, program: Program, file: int, name: str) -> str:
    if name == "weights":
        return f"static const u32 weights[8] = {{{', '.join(f'{rng.randint(0, 999)}u' for _ in range(8))}}};"
    if name == "names":
        words = ", ".join(f'"{rng.choice(_WORDS)}"' for _ in range(4))
        return f"static const char *const names[4] = {{{words}}};"
    leaves = program.leaves(file)
    return f"static const operation ops[4] = {{{', '.join(rng.choice(leaves) for _ in range(4))}}};"


def _shared(rng: Random) -> list[str]:
    def n() -> str:
        return f"{rng.randint(1, 60)}u"

    return [
        f"static inline u32 mix(u32 a, u32 b) {{ a += b * {n()}; return a ^ (a / 8u) ^ {n()}; }}",
        f"static inline u32 pair_sum(const struct pair *p) {{ return p->left * {n()} + p->right + p->small; }}",
        "static inline u32 ticks(u32 x)\n{\n    static u32 count = 3u;\n"
        '    if (io_mode) { count = (u32)io(HERE "ticks.count", count); return 0; }\n'
        f"    count += x & {n()};\n    return count * {n()};\n}}",
        f"#define FACTOR {n()}",
    ]


def _expression(rng: Random, program: Program, function: Function, depth: int = 0) -> str:
    readable = [
        v.name for v in (*function.variables, *program.variables[function.file]) if v.kind in ("number", "toggle")
    ]
    choices: list[Callable[[], str]] = [
        lambda: f"{rng.randint(0, 5000)}u",
        lambda: "acc",
        lambda: "x",
        lambda: "FACTOR",
        lambda: f"mix(acc, {rng.randint(1, 9)}u)",
        lambda: f"weights[acc & {rng.choice((3, 7))}u]",
        lambda: rng.choice(readable or ["x"]),
    ]
    if depth < 2:
        choices += [
            lambda: (
                f"({_expression(rng, program, function, depth + 1)} {rng.choice('+-*^|&')} "
                f"{_expression(rng, program, function, depth + 1)})"
            )
        ] * 3
    return f"(u32){rng.choice(choices)()}"


def _statement(rng: Random, program: Program, function: Function) -> str:
    def e() -> str:
        return _expression(rng, program, function)

    def n(most: int = 99) -> str:
        return f"{rng.randint(1, most)}u"

    def word() -> str:
        return rng.choice(_WORDS)

    tag = f"{function.name}_{program.number()}"
    cases = rng.randint(4, 9)
    table = ", ".join(n(999) for _ in range(cases))
    words = ", ".join(f'"{word()}"' for _ in range(cases))
    later = [
        f.name for f in program.functions if f.rank > function.rank and (f.file == function.file or not f.is_static)
    ]
    calls = sum(_CALL.search(statement) is not None for statement in function.statements)
    own = [*function.variables, *program.variables[function.file]]
    plain = [v for v in own if v.kind != "function" or not function.is_leaf]
    made: list[Callable[[], str]] = [
        lambda: f"acc = acc {rng.choice('+-*^|&')} {e()};",
        lambda: f"if (acc & {n()}) acc += {e()}; else acc ^= {e()};",
        lambda: f"for (u32 i = 0; i < {n(9)}; i++) acc = acc * {n()} + (i ^ {e()});",
        lambda: (
            f"switch (acc % {cases + 2}u) {{ "
            + " ".join(f"case {i}: acc {rng.choice('+-*^')}= {e()}; break;" for i in range(cases))
            + f" default: acc ^= {n()}; }}"
        ),
        lambda: (
            f"{{ const char *text; switch (acc % {cases}u) {{ "
            + " ".join(f'case {i}: text = "{tag} {word()}"; break;' for i in range(cases - 1))
            + f' default: text = "{word()}"; }} say("%s\\n", text); }}'
        ),
        lambda: f'say("{tag} %u {word()}\\n", {e()});',
        lambda: f'say("{tag} %s %s %u\\n", "{word()}", __func__, acc);',
        lambda: f"{{ double d = (double)(acc & 255u) * 1.5; d = d / {rng.randint(2, 9)}.25 + 3.0; acc += (u32)d; }}",
        lambda: (
            f"{{ static const void *const go[] = {{&&{tag}_1, &&{tag}_2, &&{tag}_3}}; goto *go[acc % 3u]; "
            f"{tag}_1: acc += {n()}; {tag}_2: acc ^= {e()}; {tag}_3: acc += {n()}; }}"
        ),
        lambda: f"{{ static const u32 t[] = {{{table}}}; acc += t[acc % {cases}u]; }}",
        lambda: f'{{ static const char *const t[] = {{{words}}}; say("{tag} %s\\n", t[acc % {cases}u]); }}',
        lambda: (
            f'if (__builtin_expect(acc % {rng.randint(3, 40)}u == 2u, 0)) {{ fail("{tag} {word()}"); acc += {e()}; }}'
        ),
        lambda: (
            f"{{ u32 v[16]; for (u32 i = 0; i < 16u; i++) v[i] = i * {n()} + acc; "
            f"for (u32 i = 0; i < 16u; i++) acc += v[i] ^ {n()}; }}"
        ),
        lambda: f"{{ struct pair p = {{acc, {n()}, 3u}}; acc += pair_sum(&p); }}",
        lambda: f'acc += (u32)strtoul("{rng.randint(0, 9999)}", NULL, 10) + (u32)labs((long)(acc & 255u) - 99);',
        lambda: f'{{ char b[24]; snprintf(b, sizeof b, "%u{word()}", acc); acc += (u32)strlen(b) + (u8)b[1]; }}',
        lambda: f"acc += ticks({e()});",
        lambda: f'say("{tag} %s\\n", names[acc & 3u]);',
    ]
    if plain:
        made += [lambda: rng.choice(plain).use(rng, e())] * 6
    if function.is_leaf and not calls:
        made += [lambda: f"if (x & 7u) acc += {function.name}((x & 7u) - 1u) * {n()};"]
    elif not function.is_leaf and calls < 3:
        made += [lambda: f"acc ^= ops[acc & 3u](acc & {n(255)});"]
        if later:
            made += [lambda: f"acc {rng.choice('+^')}= {rng.choice(later)}({rng.choice((e(), n()))});"] * 2
    return rng.choice(made)()


def render(program: Program) -> dict[str, str]:
    """File name -> text."""
    texts = {"main.c": f'#define HERE "main:"\n{_header_use()}{MAIN}'}
    visible = [f"u32 {f.name}(u32 x);" for f in program.functions if not f.is_static]
    texts["common.h"] = "\n".join([HEAD, *visible, *program.shared, ""])
    for file, name in enumerate(FILES):
        letter = name[0]
        mine = [f for f in program.functions if f.file == file]
        leaves = program.leaves(file)
        calls = [f"    acc ^= {f.name}(x + {i}u);" for i, f in enumerate(mine) if not f.is_leaf or i % 2]
        lines = [f'#define HERE "{letter}:"', _header_use()]
        lines += [f"static u32 {f.name}(u32 x);" for f in mine if f.is_static]
        lines += program.constants[file]
        lines += [v.declare(leaves) for v in program.variables[file]]
        lines += [_render_function(f, leaves) for f in mine]
        lines += [f"u32 entry_{letter}(u32 x)", "{", "    u32 acc = x;", *calls, "    return acc;", "}"]
        shows = ["    " + v.show(f'"{letter}:{v.name}', leaves) for v in program.variables[file]]
        walks = [f"    {f.name}(0);" for f in mine if f.variables]
        lines += [f"void walk_{letter}(void)", "{", *shows, *walks, "    ticks(0);", "}", ""]
        texts[name] = "\n".join(lines)
    return texts


def _header_use() -> str:
    return '#include "common.h"\n'


def _render_function(function: Function, leaves: list[str]) -> str:
    head = f"{'static ' if function.is_static else ''}{function.attributes}u32 {function.name}(u32 x)"
    lines = [head, "{", *("    " + v.declare(leaves) for v in function.variables), "    u32 acc = x * 3u;"]
    if function.variables:
        shows = " ".join(v.show(f'"{function.name}.{v.name}', leaves) for v in function.variables)
        lines.append(f"    if (io_mode) {{ {shows} return 0; }}")
    return "\n".join([*lines, *("    " + s for s in function.statements), "    return acc;", "}"])


# --- edits -----------------------------------------------------------------------------------------------------------


def edit(rng: Random, program: Program) -> tuple[Program, list[str]]:
    """An edited copy, and what was done in words. `program` stays as it is."""
    edited = deepcopy(program)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name, change = rng.choice(_EDITS)
        said = change(rng, edited)
        if said:
            done.append(f"{name}: {said}")
    return edited, done


def _some_statement(rng: Random, program: Program, pattern: re.Pattern[str]) -> tuple[Function, int] | None:
    found = [
        (f, i)
        for f in program.functions
        for i, s in enumerate(f.statements)
        if pattern.search(s) and not _FIXED.search(s)
    ]
    return rng.choice(found) if found else None


def _replace(rng: Random, pattern: re.Pattern[str], text: str, new: str) -> str:
    match = rng.choice(list(pattern.finditer(text)))
    return text[: match.start()] + new + text[match.end() :]


def _constant_in_code(rng: Random, program: Program) -> str:
    found = _some_statement(rng, program, _CONSTANT)
    if not found:
        return ""
    function, row = found
    function.statements[row] = _replace(rng, _CONSTANT, function.statements[row], f"{rng.randint(1, 99)}u")
    return function.name


def _operator(rng: Random, program: Program) -> str:
    found = _some_statement(rng, program, _OPERATOR)
    if not found:
        return ""
    function, row = found
    function.statements[row] = _replace(rng, _OPERATOR, function.statements[row], f" {rng.choice('+-*^|')} ")
    return function.name


def _insert(rng: Random, program: Program) -> str:
    function = rng.choice(program.functions)
    row = rng.randint(0, len(function.statements))
    function.statements.insert(row, _statement(rng, program, function))
    return f"{function.name}: {function.statements[row][:60]}"


def _delete(rng: Random, program: Program) -> str:
    function = rng.choice(program.functions)
    return (
        f"{function.name}: {function.statements.pop(rng.randrange(len(function.statements)))[:60]}"
        if function.statements
        else ""
    )


def _swap(rng: Random, program: Program) -> str:
    function = rng.choice(program.functions)
    rng.shuffle(function.statements)
    return function.name


def _add_function(rng: Random, program: Program) -> str:
    added = _function(
        rng, f"f{100 + program.number()}", False, min(f.rank for f in program.functions if f.is_leaf) * rng.random()
    )
    place = rng.randint(0, len(program.functions))
    program.functions.insert(place, added)
    for name in rng.sample(_LOCAL_NAMES, rng.choice((0, 1, 2))):
        added.variables.append(_variable(rng, name, may_point=False))
    for _ in range(rng.randint(1, 5)):
        added.statements.append(_statement(rng, program, added))
    return added.name


def _remove_function(rng: Random, program: Program) -> str:
    texts = " ".join(s for group in program.constants for s in group)
    texts += " ".join(" ".join(program.leaves(file)) for file in range(2))
    free = [f for f in program.functions if not f.is_leaf and not re.search(rf"\b{f.name}\b", texts)]
    if not free:
        return ""
    gone = rng.choice(free)
    program.functions.remove(gone)
    for function in program.functions:
        function.statements = [s for s in function.statements if not re.search(rf"\b{gone.name}\(", s)]
    return gone.name


def _add_local(rng: Random, program: Program) -> str:
    function = rng.choice(program.functions)
    free = [name for name in _LOCAL_NAMES if name not in [v.name for v in function.variables]]
    if not free:
        return ""
    added = _variable(rng, rng.choice(free), may_point=False)
    function.variables.insert(rng.randint(0, len(function.variables)), added)
    function.statements.append(added.use(rng, _expression(rng, program, function)))
    return f"{function.name}.{added.name}"


def _remove_local(rng: Random, program: Program) -> str:
    owners = [f for f in program.functions if f.variables]
    if not owners:
        return ""
    function = rng.choice(owners)
    gone = function.variables.pop(rng.randrange(len(function.variables)))
    function.statements = [s for s in function.statements if not re.search(rf"\b{gone.name}\b", s)]
    return f"{function.name}.{gone.name}"


def _swap_locals(rng: Random, program: Program) -> str:
    owners = [f for f in program.functions if len(f.variables) > 1]
    if not owners:
        return ""
    function = rng.choice(owners)
    function.variables.reverse()
    return function.name


def _add_static(rng: Random, program: Program) -> str:
    file = rng.randrange(2)
    added = _variable(rng, f"extra_{program.number()}", may_point=False)
    program.variables[file].insert(rng.randint(0, len(program.variables[file])), added)
    users = [f for f in program.functions if f.file == file]
    for function in rng.sample(users, min(2, len(users))):
        function.statements.append(added.use(rng, _expression(rng, program, function)))
    return added.name


def _reorder_statics(rng: Random, program: Program) -> str:
    file = rng.randrange(2)
    rng.shuffle(program.variables[file])
    return FILES[file]


def _initial_value(rng: Random, program: Program) -> str:
    variables = [v for group in program.variables for v in group] + [v for f in program.functions for v in f.variables]
    numbers = [v for v in variables if v.kind in ("number", "struct")]
    if not numbers:
        return ""
    chosen = rng.choice(numbers)
    chosen.value = rng.randint(0, 99)
    return chosen.name


def _table(rng: Random, program: Program) -> str:
    file = rng.randrange(2)
    row = rng.randrange(len(program.constants[file]))
    text = program.constants[file][row]
    name = next(n for n in ("weights", "names", "ops") if f" {n}[" in text.replace("*const ", " "))
    program.constants[file][row] = _constant(rng, program, file, name)
    return f"{FILES[file]}: {name}"


def _header(rng: Random, program: Program) -> str:
    row = rng.randrange(len(program.shared))
    program.shared[row] = _replace(rng, _LITERAL, program.shared[row], f"{rng.randint(1, 60)}u")
    return program.shared[row][:30]


def _reorder(rng: Random, program: Program) -> str:
    """The order in the files; who may call whom stays, since the statements do."""
    rng.shuffle(program.functions)
    return "functions"


def _linkage(rng: Random, program: Program) -> str:
    function = rng.choice(program.functions)
    used_elsewhere = any(
        re.search(rf"\b{function.name}\b", text)
        for file in range(2)
        if file != function.file
        for text in [
            *program.constants[file],
            *(s for f in program.functions if f.file == file for s in f.statements),
        ]
    )
    if not function.is_static and (used_elsewhere or function.is_leaf):
        return ""
    function.is_static = not function.is_static
    return f"{function.name} {'static' if function.is_static else 'global'}"


def _attribute(rng: Random, program: Program) -> str:
    function = rng.choice(program.functions)
    function.attributes = "" if function.attributes else "__attribute__((noinline)) "
    return function.name


def _variable_linkage(rng: Random, program: Program) -> str:
    file = rng.randrange(2)
    others = [v.name for v in program.variables[1 - file]]
    free = [v for v in program.variables[file] if v.name not in others]
    if not free:
        return ""
    chosen = rng.choice(free)
    chosen.is_static = not chosen.is_static
    return chosen.name


_EDITS: tuple[tuple[str, Callable[[Random, Program], str]], ...] = (
    ("constant", _constant_in_code),
    ("constant", _constant_in_code),
    ("operator", _operator),
    ("insert", _insert),
    ("insert", _insert),
    ("insert", _insert),
    ("delete", _delete),
    ("shuffle", _swap),
    ("add function", _add_function),
    ("remove function", _remove_function),
    ("add local static", _add_local),
    ("remove local static", _remove_local),
    ("swap local statics", _swap_locals),
    ("add static", _add_static),
    ("reorder statics", _reorder_statics),
    ("initial value", _initial_value),
    ("table", _table),
    ("header", _header),
    ("reorder", _reorder),
    ("linkage", _linkage),
    ("inlining", _attribute),
    ("variable linkage", _variable_linkage),
)
