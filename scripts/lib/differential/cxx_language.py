"""Small C++ programs by chance: what `c_language` makes, and what C++ adds.

That is: classes with virtual functions, of which objects live across edits; templates and inline functions in a header
that both units share, some with static variables; exceptions that are thrown, caught, passed through and thrown again,
with destructors in between; lambda expressions; static variables with guards and constructors; thread-local ones, seen
from two threads; names in anonymous namespaces that both units have; strings and vectors, the
standard library's in some programs.

One unit runs in the main thread and the other in a second one, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from differential.c_language import SAY, WORDS, C, Maker
from differential.edits import replace_one
from differential.model import Edit, Function, Program, Variable

HEAD = """
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
LIBRARY
typedef unsigned int u32;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned long u64;
typedef u32 (*operation)(u32);
#define rarely(x) __builtin_expect(x, 0)
struct pair { u32 left, right; u8 small; };
extern int io_mode;
u64 io(const lib::string &name, u64 value);
lib::string io_text(const lib::string &name, const lib::string &value);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char *text) __attribute__((cold, noinline));
u32 entry_a(u32), entry_b(u32);
void walk_a(), walk_b();
struct Trouble { u32 code; lib::string text; };
struct SmallTrouble : Trouble { SmallTrouble(u32 c) : Trouble{c, "small"} {} };
"""

STANDARD = """
#include <string>
#include <vector>
namespace lib = std;
"""

# Takes a tenth of the time to compile.
LIGHT = """
namespace lib {
struct string {
    char text[96];
    unsigned used;
    string(const char *from = "") : used(0) { *this += from; }
    string &operator+=(const char *more)
    {
        while (*more && used < 95u) text[used++] = *more++;
        text[used] = 0;
        return *this;
    }
    string &operator+=(const string &more) { return *this += more.text; }
    string &operator+=(char more)
    {
        char both[2] = {more, 0};
        return *this += both;
    }
    void erase(unsigned from, unsigned count)
    {
        memmove(text + from, text + from + count, used + 1 - from - count);
        used -= count;
    }
    const char *c_str() const { return text; }
    unsigned long size() const { return used; }
    char operator[](unsigned at) const { return text[at]; }
};
inline string operator+(string left, const string &right) { return left += right; }
inline string to_string(unsigned long value)
{
    char text[24];
    snprintf(text, sizeof text, "%lu", value);
    return text;
}
template <class T> class vector {
    T *rows = nullptr;
    unsigned long used = 0, room = 0;
public:
    vector() {}
    vector(unsigned long count, T value) { while (used < count) push_back(value); }
    vector(const vector &from) { for (T one : from) push_back(one); }
    vector &operator=(const vector &) = delete;
    ~vector() { delete[] rows; }
    void push_back(T value)
    {
        if (used == room) {
            T *more = new T[room = room * 2 + 4];
            for (unsigned long i = 0; i < used; i++) more[i] = rows[i];
            delete[] rows;
            rows = more;
        }
        rows[used++] = value;
    }
    void resize(unsigned long count)
    {
        while (used < count) push_back(T());
        used = count;
    }
    void clear() { used = 0; }
    bool empty() const { return !used; }
    unsigned long size() const { return used; }
    T &operator[](unsigned long at) { return rows[at]; }
    T *begin() { return rows; }
    T *end() { return rows + used; }
    const T *begin() const { return rows; }
    const T *end() const { return rows + used; }
};
}
"""

MAIN = (
    r"""
#include <cstdarg>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
int io_mode;
static std::map<std::string, std::string> known;
static thread_local const char *whose = "";
u64 io(const lib::string &name, u64 value)
{
    if (io_mode == 1) { printf("= %s%s %lu\n", whose, name.c_str(), value); return value; }
    auto found = known.find(std::string(whose) + name.c_str());
    return found == known.end() ? value : strtoul(found->second.c_str(), nullptr, 10);
}
lib::string io_text(const lib::string &name, const lib::string &value)
{
    if (io_mode == 1) { printf("= %s%s .%s\n", whose, name.c_str(), value.c_str()); return value; }
    auto found = known.find(std::string(whose) + name.c_str());
    return found == known.end() ? value : lib::string(found->second.c_str() + 1);
}
"""
    + SAY
    + r"""

static std::mutex lock;
static std::condition_variable told;
static void (*work)();
static void second_thread()
{
    whose = "second/";
    for (;;) {
        std::unique_lock<std::mutex> held(lock);
        told.wait(held, [] { return work != nullptr; });
        work();
        work = nullptr;
        told.notify_all();
    }
}
static void in_second(void (*task)())
{
    std::unique_lock<std::mutex> held(lock);
    work = task;
    told.notify_all();
    told.wait(held, [] { return work == nullptr; });
}
static u32 input;
static void run_b() { printf("b %u\n", entry_b(input)); }
static void walk()
{
    walk_a();
    walk_b();
}
int main()
{
    static char line[4096], name[200], text[4000];
    std::thread(second_thread).detach();
    while (next_line(line, sizeof line)) {
        unsigned long value;
        if (sscanf(line, "run %lu", &value) == 1) {
            input = (u32)value;
            printf("a %u\n", entry_a(input));
            in_second(run_b);
            pause_in = 0;
        } else if (sscanf(line, "set %199s %3999[^\n]", name, text) == 2) {
            known[name] = text;
            continue;
        } else if (sscanf(line, "pause %lu", &pause_in) == 1) {
            continue;
        } else if (!strcmp(line, "go")) {
        } else {
            io_mode = line[0] == 'd' ? 1 : 2;
            walk();
            in_second(walk);
            io_mode = 0;
        }
        printf(".\n");
        fflush(stdout);
    }
    fflush(stdout);
    _exit(0);
}
"""
)

_CLASSES = ("Round", "Flat", "Steep")


class Cxx(C):
    """Implements `Generator` and `Language`. Variables are those of C and: "text" (a string), "vector" (of u32),
    "guarded" (of a class with a constructor that runs), "computed" (a number that a call initialises), "thread"
    (thread-local)."""

    files: Sequence[str] = ("a.cc", "b.cc")
    main = "main.cc"
    fixed = re.compile(r"x & 7u|double|u32 small_|throw|make_shape")
    kinds: Sequence[str] = (
        *("number", "number", "array", "struct", "toggle"),
        *("text", "vector", "guarded", "computed", "thread", "thread"),
    )

    @property
    def own_edits(self) -> Sequence[tuple[str, Edit]]:
        return (("inlining", self._attribute), *[("class", self._class)] * 3, ("method", self._method))

    def main_text(self) -> str:
        return MAIN

    def make_shared(self, rng: Random) -> list[str]:
        def n() -> str:
            return f"{rng.randint(1, 60)}u"

        return [
            f"inline u32 mix(u32 a, u32 b) {{ a += b * {n()}; return a ^ (a / 8u) ^ {n()}; }}",
            f"inline u32 pair_sum(const struct pair *p) {{ return p->left * {n()} + p->right + p->small; }}",
            "inline u32 ticks(u32 x)\n{\n    static u32 count = 3u;\n"
            '    if (io_mode) { count = (u32)io("ticks.count", count); return 0; }\n'
            f"    count += x & {n()};\n    return count * {n()};\n}}",
            f"constexpr u32 FACTOR = {n()};",
            f"inline u32 start(u32 x) {{ return x * {n()} + {n()}; }}",
            "struct Counter {\n    u32 value;\n"
            f"    explicit Counter(u32 x) : value(start(x)) {{}}\n"
            f"    ~Counter() {{ value = 0; }}\n"
            f"    u32 next(u32 x) {{ value += x * {n()}; return value ^ {n()}; }}\n}};",
            "template <class F> inline u32 times(u32 count, F f)\n{\n    u32 sum = 0;\n"
            f"    for (u32 i = 0; i < count; i++) sum = sum * {n()} + f(i);\n    return sum;\n}}",
            "template <class T> u32 tally(T x)\n{\n    static u32 seen;\n"
            '    if (io_mode) { seen = (u32)io("tally" + lib::to_string(sizeof(T)), seen); return 0; }\n'
            f"    seen += (u32)x & {n()};\n    return seen + (u32)(T)(x * {n()});\n}}",
            "template <class T> T most(const lib::vector<T> &all)\n{\n    T found = 0;\n"
            f"    for (T one : all) if ((T)(one ^ {n()}) > found) found = one;\n    return found;\n}}",
            "struct Guard {\n    const char *name;\n    u32 at;\n    u32 &into;\n"
            f'    ~Guard() {{ into += at * {n()}; say("left %s %u\\n", name, at); }}\n}};',
            "struct Shape {\n    u64 a, b;\n    Shape(u64 x, u64 y) : a(x), b(y) {}\n    virtual ~Shape() {}\n"
            f"    virtual u32 area(u32 x) {{ return (u32)a * x + {n()}; }}\n"
            f'    virtual const char *name() const {{ return "shape"; }}\n'
            f"    virtual u32 touch(u32 x) {{ a += x & {n()}; return (u32)(a ^ b); }}\n"
            f"    u32 plain(u32 x) const {{ return (u32)b * {n()} + x; }}\n}};",
            *(self._derived(rng, name, base) for name, base in zip(_CLASSES, ("Shape", "Shape", "Flat"), strict=True)),
            "inline Shape *make_shape(u32 kind, u64 a, u64 b)\n{\n    switch (kind % 4u) {\n"
            "    case 0u: return new Round(a, b);\n    case 1u: return new Flat(a, b);\n"
            "    case 2u: return new Steep(a, b);\n    default: return new Shape(a, b);\n    }\n}",
            "inline lib::vector<Shape *> some_shapes()\n{\n    lib::vector<Shape *> made;\n"
            "    for (u32 i = 0; i < 4u; i++) made.push_back(make_shape(i, i, 7u * i));\n    return made;\n}",
        ]

    def _derived(self, rng: Random, name: str, base: str) -> str:
        bodies = [
            f"u32 area(u32 x) override {{ return {base}::area(x) ^ (u32)b * {rng.randint(1, 60)}u; }}",
            f'const char *name() const override {{ return "{name} {rng.choice(WORDS)}"; }}',
            f"u32 touch(u32 x) override {{ b += x & {rng.randint(1, 60)}u; return area(x) + plain(x); }}",
        ]
        kept = [body for body in bodies if rng.random() < 0.75]
        return f"struct {name} : {base} {{\n    using {base}::{base};\n    " + "\n    ".join(kept) + "\n};"

    # Variables.

    def declare(self, variable: Variable, leaves: Sequence[str]) -> str:
        name, value = variable.name, variable.value
        prefix = "static " if variable.is_static else ""
        if variable.kind == "text":
            return f'{prefix}lib::string {name} = "{WORDS[value % len(WORDS)]}";'
        if variable.kind == "vector":
            return f"{prefix}lib::vector<u32> {name}({variable.size}u, {value}u);"
        if variable.kind == "guarded":
            return f"{prefix}Counter {name}({value}u);"
        if variable.kind == "computed":
            return f"{prefix}u32 {name} = start({value}u);"
        if variable.kind == "thread":
            return f"static thread_local u32 {name} = {value}u;"
        return super().declare(variable, leaves)

    def show(self, variable: Variable, key: str, leaves: Sequence[str]) -> str:
        name = variable.name
        if variable.kind == "text":
            return f'{name} = io_text({key}", {name});'
        if variable.kind == "vector":
            return (
                f'{name}.resize(io({key}.size", {name}.size())); for (u32 i = 0; i < {name}.size(); i++) '
                f'{name}[i] = (u32)io({key}." + lib::to_string(i), {name}[i]);'
            ).replace(f'io({key}." +', f'io(lib::string({key}.") +')
        if variable.kind == "guarded":
            return f'{name}.value = (u32)io({key}", {name}.value);'
        if variable.kind in ("computed", "thread"):
            return f'{name} = (u32)io({key}", {name});'
        return super().show(variable, key, leaves)

    def use(self, rng: Random, variable: Variable, expression: str) -> str:
        n = variable.name
        if variable.kind == "text":
            return rng.choice(
                (
                    f"{n} += (char)('a' + acc % 26u); if ({n}.size() > 60u) {n}.erase(0, 50); acc += (u32){n}.size();",
                    f'if (acc & 1u) {n} = "{rng.choice(WORDS)}" + lib::to_string({expression}); acc += (u8){n}[0];',
                    f'say("%s\\n", {n}.c_str());',
                )
            )
        if variable.kind == "vector":
            return rng.choice(
                (
                    f"if ({n}.size() < 20u) {n}.push_back({expression}); else {n}.clear(); acc += most({n});",
                    f"for (u32 &one : {n}) one += {rng.randint(1, 9)}u; acc ^= (u32){n}.size();",
                    f"acc += most({n});",
                )
            )
        if variable.kind == "guarded":
            return f"acc ^= {n}.next({expression});"
        if variable.kind in ("computed", "thread"):
            return rng.choice((f"{n} += {expression}; acc ^= {n};", f"acc += {n}; {n}++;"))
        return super().use(rng, variable, expression)

    # Code.

    def special(self, rng: Random, tag: str, n: Callable[..., str], e: Maker) -> list[Maker]:
        def word() -> str:
            return rng.choice(WORDS)

        return [
            lambda: f"acc += times({n(9)}, [&](u32 i) {{ return acc ^ i * {n()} ^ {e()}; }});",
            lambda: f"acc += times({n(9)}, [=](u32 i) {{ return acc + i * {n()}; }});",
            lambda: (
                f"{{ static u32 (*const go_{tag}[])(u32) = {{[](u32 v) {{ return v * {n()}; }}, "
                f"[](u32 v) {{ return v ^ {n()}; }}}}; acc = go_{tag}[acc & 1u](acc); }}"
            ),
            lambda: f"acc += tally((u32)({e()}));",
            lambda: f"acc += tally((u8)({e()})) + tally((u16)acc);",
            lambda: f'{{ Guard guard{{"{tag}", acc & 15u, acc}}; acc += {e()}; }}',
            lambda: (
                f'try {{ if (acc % {rng.randint(2, 6)}u == 1u) throw Trouble{{{e()}, "{word()}"}}; acc += {n()}; }} '
                f'catch (const Trouble &t) {{ say("{tag} caught %u %s\\n", t.code, t.text.c_str()); acc ^= t.code; }}'
            ),
            lambda: f'if (acc % {rng.randint(3, 9)}u == 1u) throw Trouble{{acc & 255u, "{tag} {word()}"}};',
            lambda: f"if (acc % {rng.randint(3, 9)}u == 2u) throw SmallTrouble(acc & {n()});",
            lambda: (
                f'{{ lib::string s("{word()}"); s += lib::to_string(acc % {n()}); s += "{word()}"; '
                f'say("{tag} %s\\n", s.c_str()); acc += (u32)s.size(); }}'
            ),
            lambda: (
                f"{{ lib::vector<u32> v; for (u32 i = 0; i < {n(9)}; i++) v.push_back(acc ^ i * {n()}); "
                f"acc += most(v); }}"
            ),
            lambda: f'for (Shape *one : zoo) {{ acc ^= one->area({n()}); say("{tag} %s\\n", one->name()); }}',
            lambda: f"acc += zoo[acc % zoo.size()]->touch({e()});",
            lambda: f"acc ^= zoo[acc % zoo.size()]->plain({e()});",
            lambda: f"{{ Shape *one = make_shape({e()}, acc, {n()}); acc += one->touch({n()}); delete one; }}",
            lambda: f"acc += helper({e()});",
        ]

    def calls(self, rng: Random, program: Program, function: Function, n: Callable[..., str], e: Maker) -> list[Maker]:
        made = super().calls(rng, program, function, n, e)
        if function.is_leaf:
            return made
        tag = f"{function.name}_{program.number()}"

        def caught() -> str:
            return (
                f"try {{ {rng.choice(made)()} }} catch (const SmallTrouble &t) {{ acc += t.code; "
                f"if (acc & {n(7)}) throw; }} catch (const Trouble &t) {{ "
                f'say("{tag} got %u %s\\n", t.code, t.text.c_str()); acc ^= {n()}; }}'
            )

        return made + [caught] * 3 if made else made

    # Text.

    def head(self, program: Program) -> str:
        return HEAD.replace("LIBRARY", program.shape[-1])

    def file_extra(self, program: Program, file: int, letter: str) -> list[str]:
        return [f"namespace {{\n{program.shape[file]}\nlib::vector<Shape *> zoo = some_shapes();\n}}"]

    def generate(self, rng: Random) -> Program:
        program = super().generate(rng)
        program.shape = [*(self._helper(rng) for _ in self.files), STANDARD if rng.random() < 0.2 else LIGHT]
        return program

    def _helper(self, rng: Random) -> str:
        return (
            f"u32 helper(u32 x)\n{{\n    static u32 last = {rng.randint(0, 9)}u;\n"
            '    if (io_mode) { last = (u32)io(HERE "helper.last", last); return 0; }\n'
            f"    last ^= x + {rng.randint(1, 99)}u;\n    return last * {rng.randint(1, 99)}u;\n}}"
        )

    def shared_walks(self, file: int, letter: str) -> list[str]:
        return [
            'for (u32 i = 0; i < zoo.size(); i++) { lib::string key = HERE "zoo." + lib::to_string(i);',
            'zoo[i]->a = io(key + ".a", zoo[i]->a); zoo[i]->b = io(key + ".b", zoo[i]->b); }',
            "helper(0);",
            *(["tally((u8)0); tally((u16)0); tally((u32)0);"] if file == 0 else []),
        ]

    def entry_call(self, function: Function, row: int) -> str:
        call = super().entry_call(function, row)
        return f'try {{ {call} }} catch (const Trouble &t) {{ say("end %u %s\\n", t.code, t.text.c_str()); }}'

    # Edits of C++ alone.

    def _class(self, rng: Random, program: Program) -> str:
        """What a virtual function or a template of the header does."""
        rows = [row for row, text in enumerate(program.shared) if text.startswith(("struct", "template"))]
        row = rng.choice([row for row in rows if self.literal.search(program.shared[row])])
        program.shared[row] = replace_one(rng, self.literal, program.shared[row], f"{rng.randint(1, 60)}u")
        return program.shared[row].partition("\n")[0]

    def _method(self, rng: Random, program: Program) -> str:
        """A new member function that nothing of the old code needs, and what is in an anonymous namespace."""
        file = rng.randrange(len(self.files))
        if rng.random() < 0.5:
            program.shape[file] = replace_one(rng, self.literal, program.shape[file], f"{rng.randint(1, 99)}u")
            return f"helper of {self.files[file]}"
        row = next(row for row, text in enumerate(program.shared) if text.startswith("struct Counter"))
        name = f"more_{program.number()}"
        body = f"    u32 {name}(u32 x) const {{ return value * {rng.randint(1, 60)}u + x; }}\n}};"
        program.shared[row] = program.shared[row].removesuffix("};") + body
        users = [f for f in program.functions if f.file == file]
        if users:
            rng.choice(users).statements.append(f"{{ Counter c({rng.randint(1, 9)}u); acc ^= c.{name}(acc); }}")
        return f"Counter::{name}"
