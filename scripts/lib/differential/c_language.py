"""Small C programs by chance, whose state can be written out and read back.

A program has two files, a header and a main that no edit touches. Its state is in named variables: static ones of a
file, static ones of a function (of few names, so that several functions have one of the same name), global ones.
Every function that has some shows them to `io` when `io_mode` is set, by value, so that the compiler may do with them
what it likes. A freshly built edited program is thus brought to the state of any running one: what exists under the
same name gets its value, what is new keeps its initial one.

Nothing is undefined and everything ends: arithmetic is unsigned, functions call later ones only, recursion counts down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from differential.edits import edit
from differential.model import Edit, Function, Program, Variable

WORDS = ("alpha", "beta", "gamma", "delta", "omega", "the quick brown fox", "", "x", "%%", "lorem ipsum dolor sit amet")
_CALL = re.compile(r"\bf\d+\(|ops\[")
_NAMES = ("total", "table", "mode", "limit", "mood", "hook")

READ_LINE = r"""
static char *next_line(char *line, int size)
{
    static char input[4096];
    static int at, end;
    int length = 0;
    for (;;) {
        if (at == end) {
            at = 0;
            end = (int)read(0, input, sizeof input);
            if (end <= 0) return 0;
        }
        char c = input[at++];
        if (c == '\n') break;
        if (length < size - 1) line[length++] = c;
    }
    line[length] = 0;
    return line;
}
"""

SAY = (
    READ_LINE
    + r"""
static unsigned long pause_in;
static void rest(void)
{
    static char line[200];
    if (pause_in && !--pause_in) {
        printf("\n(paused)\n.\n");
        fflush(stdout);
        next_line(line, sizeof line);
    }
}
void say(const char *format, ...)
{
    va_list rest_of;
    va_start(rest_of, format);
    vprintf(format, rest_of);
    va_end(rest_of);
    rest();
}
void fail(const char *text) { printf("fail %s\n", text); rest(); }
"""
)
"""What functions print with. It waits when it was asked to."""

MAIN = (
    r"""
#include <stdarg.h>
#include <unistd.h>
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
"""
    + SAY
    + r"""
int main(void)
{
    static char line[200];
    while (next_line(line, sizeof line)) {
        unsigned long value;
        char name[64];
        if (sscanf(line, "run %lu", &value) == 1) {
            printf("a %u\n", entry_a((u32)value));
            printf("b %u\n", entry_b((u32)value));
            pause_in = 0;
        } else if (sscanf(line, "set %63s %lu", name, &value) == 2) {
            strcpy(known[number_known].name, name);
            known[number_known++].value = value;
            continue;
        } else if (sscanf(line, "pause %lu", &pause_in) == 1) {
            continue;
        } else if (!strcmp(line, "go")) {
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
)

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
#define rarely(x) __builtin_expect(x, 0)
struct pair { u32 left, right; u8 small; };
extern int io_mode;
unsigned long io(const char *name, unsigned long value);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char *text) __attribute__((cold, noinline));
u32 entry_a(u32), entry_b(u32);
void walk_a(void), walk_b(void);
"""

Maker = Callable[[], str]


class C:
    """Implements `Generator` and `Language`. Variables are a "number" (of `type`), an "array" (`size` elements), a
    "struct" (a pair), a "toggle" (zero or one constant) or a "function" (a pointer to one of the leaves)."""

    files: Sequence[str] = ("a.c", "b.c")
    main = "main.c"
    can_pause = True
    local_names: Sequence[str] = ("count", "seen", "last", "state")
    literal = re.compile(r"\b\d+u\b")
    constant_in_code = re.compile(r"(?<=[-+*^] )\d+u|(?<=\(acc, )\d+u")
    operator = re.compile(r'(?<!\[acc)(?<!") [-+*^|&] ')
    operators = "+-*^|"
    fixed = re.compile(r"x & 7u|double|u32 small_")  # recursion that must end; operators that are not for these types
    kinds: Sequence[str] = ("number", "number", "number", "array", "struct", "toggle")

    @property
    def own_edits(self) -> Sequence[tuple[str, Edit]]:
        return (("inlining", self._attribute), ("variable linkage", self._variable_linkage))

    def edit(self, rng: Random, program: Program) -> tuple[Program, list[str]]:
        return edit(rng, program, self)

    def number(self, value: int) -> str:
        return f"{value}u"

    def may_move(self, program: Program, function: Function, file: int) -> bool:
        return True

    def generate(self, rng: Random) -> Program:
        program = Program([], [[], []], [[], []], [])
        total = rng.randint(5, 9)
        for index in range(total):
            program.functions.append(self.function(rng, f"f{index}", index >= total - 4, float(index)))
        for file in range(2):
            fixed = [f for f in program.functions if f.is_leaf][file]
            fixed.file, fixed.is_static = file, False
            for name in rng.sample(_NAMES, rng.randint(2, 5)):
                program.variables[file].append(self.variable(rng, name, is_local=False))
            for name in ("weights", "names", "ops"):
                program.constants[file].append(self.constant(rng, program, file, name))
        program.shared = self.make_shared(rng)
        for function in program.functions:
            for name in rng.sample(list(self.local_names), rng.choice((0, 0, 1, 1, 2, 3))):
                function.variables.append(self.variable(rng, name, is_local=True))
            for _ in range(rng.randint(1, 6)):
                function.statements.append(self.statement(rng, program, function))
        return program

    def function(self, rng: Random, name: str, is_leaf: bool, rank: float) -> Function:
        attributes = rng.choice(("", "", "__attribute__((noinline)) ", "__attribute__((noinline)) "))
        return Function(name, rng.randrange(2), rng.random() < 0.6, attributes, is_leaf, rank)

    def variable(self, rng: Random, name: str, is_local: bool) -> Variable:
        kind = "function" if name == "hook" else rng.choice(list(self.kinds))
        type_ = rng.choice(("u32", "u32", "u8", "u16", "u64")) if kind in ("number", "array") else "u32"
        return Variable(name, kind, type_, rng.randint(2, 9), rng.choice((0, 0, 1, rng.randint(2, 99))))

    def constant(self, rng: Random, program: Program, file: int, name: str) -> str:
        if name == "weights":
            return f"static const u32 weights[8] = {{{', '.join(f'{rng.randint(0, 999)}u' for _ in range(8))}}};"
        if name == "names":
            words = ", ".join(f'"{rng.choice(WORDS)}"' for _ in range(4))
            return f"static const char *const names[4] = {{{words}}};"
        leaves = program.leaves(file)
        return f"static const operation ops[4] = {{{', '.join(rng.choice(leaves) for _ in range(4))}}};"

    def make_shared(self, rng: Random) -> list[str]:
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

    # Variables.

    def declare(self, variable: Variable, leaves: Sequence[str]) -> str:
        name, value = variable.name, variable.value
        prefix = "static " if variable.is_static else ""
        if variable.kind == "array":
            values = ", ".join(f"{value + i}u" for i in range(variable.size)) if value else "0"
            return f"{prefix}{variable.type} {name}[{variable.size}] = {{{values}}};"
        if variable.kind == "struct":
            return f"{prefix}struct pair {name} = {{{value}u, {value // 2}u, 1u}};"
        if variable.kind == "function":
            return f"{prefix}operation {name} = {leaves[value % len(leaves)]};"
        if variable.kind == "toggle":
            return f"{prefix}u32 {name};"
        return f"{prefix}{variable.type} {name} = {value}u;"

    def show(self, variable: Variable, key: str, leaves: Sequence[str]) -> str:
        """Statements that hand the variable to `io`. `key`: an unfinished string literal."""
        name, type_ = variable.name, variable.type
        if variable.kind == "array":
            rows = range(variable.size)
            return " ".join(f'{name}[{i}] = ({type_})io({key}[{i}]", {name}[{i}]);' for i in rows)
        if variable.kind == "struct":
            return " ".join(
                f'{name}.{part} = ({t})io({key}.{part}", {name}.{part});'
                for part, t in (("left", "u32"), ("right", "u32"), ("small", "u8"))
            )
        if variable.kind == "toggle":
            return f'{name} = io({key}", {name} != 0) ? {variable.size}u : 0u;'
        if variable.kind == "function":
            is_one = " : ".join(f"{name} == {leaf} ? {leaf[1:]}u" for leaf in leaves)
            chain = " ".join(f"else if (chosen == {leaf[1:]}u) {name} = {leaf};" for leaf in leaves)
            return f'{{ u64 chosen = io({key}", {is_one} : 99u); if (chosen == 99u) {{}} {chain} }}'
        return f'{name} = ({type_})io({key}", {name});'

    def use(self, rng: Random, variable: Variable, expression: str) -> str:
        n = variable.name
        if variable.kind == "array":
            return f"{n}[acc % {variable.size}u] += {expression}; acc ^= {n}[x % {variable.size}u];"
        if variable.kind == "struct":
            return rng.choice(
                (
                    f"{n}.left += {expression}; acc ^= {n}.right + {n}.left;",
                    f"{n}.right ^= {expression}; {n}.small++; acc += {n}.small;",
                    f"acc += pair_sum(&{n});",
                )
            )
        if variable.kind == "toggle":
            return rng.choice(
                (f"if (acc & 1u) {n} = {variable.size}u; acc += {n};", f"if (acc & 4u) {n} = 0u; else acc ^= {n};")
            )
        if variable.kind == "function":
            return f"acc ^= {n}(acc & {rng.randint(1, 255)}u);"
        return rng.choice(
            (f"{n} += {expression}; acc ^= {n};", f"acc += {n}; {n}++;", f"{n} = ({variable.type})(acc ^ {n});")
        )

    # Code.

    def expression(self, rng: Random, program: Program, function: Function, depth: int = 0) -> str:
        readable = [
            v.name for v in (*function.variables, *program.variables[function.file]) if v.kind in ("number", "toggle")
        ]
        choices: list[Maker] = [
            lambda: f"{rng.randint(0, 5000)}u",
            lambda: "acc",
            lambda: "x",
            lambda: "FACTOR",
            lambda: f"mix(acc, {rng.randint(1, 9)}u)",
            lambda: f"weights[acc & {rng.choice((3, 7))}u]",
            lambda: rng.choice(readable or ["x"]),
        ]
        if depth < 2:

            def both() -> str:
                left, right = (self.expression(rng, program, function, depth + 1) for _ in range(2))
                return f"({left} {rng.choice('+-*^|&')} {right})"

            choices += [both] * 3
        return f"(u32){rng.choice(choices)()}"

    def statement(self, rng: Random, program: Program, function: Function) -> str:
        return rng.choice(self.makers(rng, program, function))()

    def makers(self, rng: Random, program: Program, function: Function) -> list[Maker]:
        """What may make a statement of this function."""

        def e() -> str:
            return self.expression(rng, program, function)

        def n(most: int = 99) -> str:
            return f"{rng.randint(1, most)}u"

        def word() -> str:
            return rng.choice(WORDS)

        tag = f"{function.name}_{program.number()}"
        cases = rng.randint(4, 9)
        table = ", ".join(n(999) for _ in range(cases))
        words = ", ".join(f'"{word()}"' for _ in range(cases))
        made: list[Maker] = [
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
            lambda: (
                f"{{ double d = (double)(acc & 255u) * 1.5; d = d / {rng.randint(2, 9)}.25 + 3.0; acc += (u32)d; }}"
            ),
            lambda: f"{{ static const u32 t[] = {{{table}}}; acc += t[acc % {cases}u]; }}",
            lambda: f'{{ static const char *const t[] = {{{words}}}; say("{tag} %s\\n", t[acc % {cases}u]); }}',
            lambda: f'if (rarely(acc % {rng.randint(3, 40)}u == 2u)) {{ fail("{tag} {word()}"); acc += {e()}; }}',
            lambda: (
                f"{{ u32 v[16]; for (u32 i = 0; i < 16u; i++) v[i] = i * {n()} + acc; "
                f"for (u32 i = 0; i < 16u; i++) acc += v[i] ^ {n()}; }}"
            ),
            lambda: f"{{ struct pair p = {{acc, {n()}, 3u}}; acc += pair_sum(&p); }}",
            lambda: self._local_type(rng, tag, e()),
            lambda: f'acc += (u32)strtoul("{rng.randint(0, 9999)}", NULL, 10) + (u32)labs((long)(acc & 255u) - 99);',
            lambda: f'{{ char b[24]; snprintf(b, sizeof b, "%u{word()}", acc); acc += (u32)strlen(b) + (u8)b[1]; }}',
            lambda: f"acc += ticks({e()});",
            lambda: f'say("{tag} %s\\n", names[acc & 3u]);',
            *self.special(rng, tag, n, e),
        ]
        plain = [
            v
            for v in (*function.variables, *program.variables[function.file])
            if v.kind != "function" or not function.is_leaf
        ]
        if plain:
            made += [lambda: self.use(rng, rng.choice(plain), e())] * 6
        return made + self.calls(rng, program, function, n, e)

    def calls(self, rng: Random, program: Program, function: Function, n: Callable[..., str], e: Maker) -> list[Maker]:
        """Statements that call other functions of the program."""
        later = [
            f.name for f in program.functions if f.rank > function.rank and (f.file == function.file or not f.is_static)
        ]
        calls = sum(_CALL.search(statement) is not None for statement in function.statements)
        if function.is_leaf and not calls:
            return [lambda: f"if (x & 7u) acc += {function.name}((x & 7u) - 1u) * {n()};"]
        if function.is_leaf or calls >= 3:
            return []
        made: list[Maker] = [lambda: f"acc ^= ops[acc & 3u](acc & {n(255)});"]
        if later:
            made += [lambda: f"acc {rng.choice('+^')}= {rng.choice(later)}({rng.choice((e(), n()))});"] * 2
        return made

    def special(self, rng: Random, tag: str, n: Callable[..., str], e: Maker) -> list[Maker]:
        """Statements that only this language has."""
        return [
            lambda: (
                f"{{ static const void *const go[] = {{&&{tag}_1, &&{tag}_2, &&{tag}_3}}; goto *go[acc % 3u]; "
                f"{tag}_1: acc += {n()}; {tag}_2: acc ^= {e()}; {tag}_3: acc += {n()}; }}"
            ),
        ]

    def _local_type(self, rng: Random, tag: str, value: str) -> str:
        # A type of which no object lives when the program waits.
        members = rng.sample(("u8 small_a;", "u16 small_b;", "u32 small_c;", "u64 small_d;", "u32 small_e[3];"), 3)
        named = [part.split()[1].rstrip(";") for part in members]
        first = next(name for name in named if "[" not in name)
        return (
            f"{{ struct local_{tag} {{ {' '.join(members)} }} o; memset(&o, 0, sizeof o); o.{first} += {value}; "
            f"acc += (u32)o.{first} + (u32)sizeof o; }}"
        )

    # Text.

    def render(self, program: Program) -> dict[str, str]:
        texts = {self.main: f'#include "base.h"\n{self.main_text()}', "base.h": self.head(program)}
        visible = [f"u32 {_signature(f)};" for f in program.functions if not f.is_static]
        texts["common.h"] = "\n".join(["#pragma once", '#include "base.h"', *visible, *program.shared, ""])
        for file, name in enumerate(self.files):
            texts[name] = self.render_file(program, file, name[0])
        return {name: _with_extras(text, program) for name, text in texts.items()}

    def main_text(self) -> str:
        return MAIN

    def head(self, program: Program) -> str:
        return HEAD

    def render_file(self, program: Program, file: int, letter: str) -> str:
        mine = [f for f in program.functions if f.file == file]
        leaves = program.leaves(file)
        calls = [f"    {self.entry_call(f, i)}" for i, f in enumerate(mine) if not f.is_leaf or i % 2]
        lines = [f'#define HERE "{letter}:"', '#include "common.h"\n']
        lines += [f"static u32 {_signature(f)};" for f in mine if f.is_static]
        lines += program.constants[file]
        lines += [self.declare(v, leaves) for v in program.variables[file]]
        lines += self.file_extra(program, file, letter)
        lines += [self._render_function(f, leaves) for f in mine]
        lines += [f"u32 entry_{letter}(u32 x)", "{", "    u32 acc = x;", *calls, "    return acc;", "}"]
        shows = ["    " + self.show(v, f'"{letter}:{v.name}', leaves) for v in program.variables[file]]
        walks = [f"    {f.name}(0);" for f in mine if f.variables]
        shows += ["    " + text for text in self.shared_walks(file, letter)]
        lines += [f"void walk_{letter}(void)", "{", *shows, *walks, "    ticks(0);", "}", ""]
        return "\n".join(lines)

    def entry_call(self, function: Function, row: int) -> str:
        return f"acc ^= {function.name}(x + {row}u);"

    def file_extra(self, program: Program, file: int, letter: str) -> list[str]:
        return []

    def shared_walks(self, file: int, letter: str) -> list[str]:
        return []

    def _render_function(self, function: Function, leaves: list[str]) -> str:
        head = f"{'static ' if function.is_static else ''}{function.attributes}u32 {_signature(function)}"
        acc = "x * 3u" if function.extra is None else "x * 3u + extra"
        lines = [head, "{", *("    " + self.declare(v, leaves) for v in function.variables), f"    u32 acc = {acc};"]
        if function.variables:
            shows = " ".join(self.show(v, f'"{function.name}.{v.name}', leaves) for v in function.variables)
            lines.append(f"    if (io_mode) {{ {shows} return 0; }}")
        return "\n".join([*lines, *("    " + s for s in function.statements), "    return acc;", "}"])

    # Edits of C alone.

    def _attribute(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        function.attributes = "" if function.attributes else "__attribute__((noinline)) "
        return function.name

    def _variable_linkage(self, rng: Random, program: Program) -> str:
        file = rng.randrange(2)
        others = [v.name for v in program.variables[1 - file]]
        free = [v for v in program.variables[file] if v.name not in others]
        if not free:
            return ""
        chosen = rng.choice(free)
        chosen.is_static = not chosen.is_static
        return chosen.name


def _signature(function: Function) -> str:
    extra = "" if function.extra is None else "u32 extra, "
    return f"{function.name}({extra}u32 x)"


def _with_extras(text: str, program: Program) -> str:
    """Calls with the argument that their function takes in addition."""
    for function in program.functions:
        if function.extra is not None:
            text = re.sub(rf"\b{function.name}\((?!u32)", f"{function.name}({function.extra}u, ", text)
    return text
