"""A small program in several files, and twenty edits of it, one after the other.

Each edit says which files it writes or removes and what the program answers from then on. The answers are those of a
program that was never stopped: what it counted before an edit it goes on counting.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenario import Project

HEADER = """
#define SCALE 10
int price(int item);
int asked(void);
int stock(int taken);
int tax(int amount);
int total(int item, int count);
"""
PRICE = """
#include "shop.h"
static int times;
int price(int item) { times += 1; return item * SCALE; }
int asked(void) { return times; }
"""
STOCK = """
#include "shop.h"
int stock(int taken) {
    static int left = 100;
    left -= taken;
    switch (taken) { case 1: return left; case 2: return left + 1000; case 3: return left + 2000; case 4: return -left;
                     case 5: return left * 2; default: return left; }
}
"""
TAX = """
#include "shop.h"
static int collected;
int tax(int amount) { collected += amount / 10; return amount / 10; }
"""
TOTAL = """
#include "shop.h"
int total(int item, int count) { int sum = price(item) * count; return sum + tax(sum); }
"""
MAIN = """
#include <stdio.h>
#include <string.h>
#include "shop.h"
/* The compiler must not learn here what a function returns: main is on the stack for ever and keeps its old code. */
#define OPAQUE(f) ({ __typeof__(&f) p = &f; __asm__ volatile("" : "+r"(p)); p; })
int main(void) {
    char line[80], word[20];
    int a, b;
    while (fgets(line, sizeof line, stdin)) {
        a = b = 0;
        sscanf(line, "%19s %d %d", word, &a, &b);
        if (!strcmp(word, "price")) printf("%d\\n", OPAQUE(price)(a));
        else if (!strcmp(word, "asked")) printf("%d\\n", OPAQUE(asked)());
        else if (!strcmp(word, "stock")) printf("%d\\n", OPAQUE(stock)(a));
        else printf("%d\\n", OPAQUE(total)(a, b));
        fflush(stdout);
    }
    return 0;
}
"""
FILES = {"shop.h": HEADER, "price.c": PRICE, "stock.c": STOCK, "tax.c": TAX, "total.c": TOTAL, "main.c": MAIN}


@dataclass(frozen=True)
class Step:
    """`write`: file -> new text. `remove`: files that are gone from the project. `functions`: of the patch.
    `ask`: command -> answer, in this order."""

    name: str
    write: Mapping[str, str]
    ask: Sequence[tuple[str, str]]
    functions: set[str]
    remove: Sequence[str] = field(default_factory=tuple)


def _with(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


_SINCE = _with(
    PRICE,
    ("static int times;", "static int times;\nstatic int since = 7;"),
    ("times += 1;", "times += 1; since += 1;"),
    ("return times;", "return times * 1000 + since;"),
)
_LESS = _with(
    _SINCE,
    ("int price", "__attribute__((noinline)) int less(int x) { return x - 1; }\nint price"),
    ("item * SCALE", "less(item * SCALE)"),
)
_RATE_HEADER = _with(HEADER, ("int tax(int amount);", "long tax(long rate, int amount);"))
_RATE_TAX = _with(
    TAX,
    (
        "int tax(int amount) { collected += amount / 10; return amount / 10; }",
        "long tax(long rate, int amount) { collected += 1; return amount * rate / 100; }",
    ),
)
_RATE_TOTAL = _with(TOTAL, ("tax(sum)", "(int)tax(20, sum)"))
_COUPON_TOTAL = _with(
    _RATE_TOTAL,
    ('#include "shop.h"', '#include "shop.h"\n#include "coupon.h"'),
    ("return sum + ", "return coupon(count) + sum + "),
)
_COUPON = """
#include "coupon.h"
static int given = 5000;
__attribute__((noinline)) static int next_coupon(void) { return ++given; }
int coupon(int count) { return count > 1 ? -next_coupon() : 0; }
"""
_PRICING = _with(_LESS, ("return x - 1;", "return x - 2;"))
_PRICING_TOO = _with(_LESS, ("return x - 1;", "return x - 3;"))
_ONE_FILE = f"""{_COUPON_TOTAL}
static int collected;
long tax(long rate, int amount) {{ collected += 1; return collected; }}
"""
_ONE_FILE_TOO = _with(_ONE_FILE, ("return collected;", "return collected * 100;"))
_STOCK_TOO = _with(
    STOCK,
    ("static int left = 100;", "static int fresh = 1;\n    static int left = 100;"),
    ("left -= taken;", "left -= taken; fresh += 1;"),
    ("default: return left;", "default: return left * 100 + fresh;"),
)
_STOCK_THREE = _with(_STOCK_TOO, ("default:", "case 6: return 66;\n    case 7: return 77; default:"))
_TAX_AGAIN = _with(_RATE_TAX, ("return amount * rate / 100;", "return collected * 100 + 1;"))

STEPS = (
    Step("a body", {"price.c": _with(PRICE, ("item * SCALE", "item * SCALE + 1"))}, [("price 3", "31")], {"price"}),
    Step(
        "another file",
        {"tax.c": _with(TAX, ("return amount / 10;", "return amount / 5;"))},
        [("total 1 1", "13")],
        {"tax"},
    ),
    Step("a new static", {"price.c": _SINCE}, [("price 3", "30"), ("asked", "4008")], {"price", "asked"}),
    Step("a new function", {"price.c": _LESS}, [("price 3", "29"), ("asked", "5009")], {"price", "less"}),
    Step("back to the original", {"tax.c": TAX}, [("total 1 1", "9")], {"tax"}),
    Step("a function removed", {"price.c": _SINCE}, [("price 3", "30"), ("asked", "7011")], {"price", "less"}),
    Step("and added again", {"price.c": _LESS}, [("price 3", "29"), ("asked", "8012")], {"price", "less"}),
    Step(
        "a signature, in all its files",
        {"shop.h": _RATE_HEADER, "tax.c": _RATE_TAX, "total.c": _RATE_TOTAL},
        [("total 2 1", "22")],
        {"tax", "total"},
    ),
    Step(
        "a new file",
        {"coupon.c": _COUPON, "coupon.h": "int coupon(int count);\n", "total.c": _COUPON_TOTAL},
        [("total 2 1", "22"), ("total 2 2", str(38 + 7 - 5001))],
        {"total", "coupon", "next_coupon"},
    ),
    Step(
        "a header of all files",
        {"shop.h": _with(_RATE_HEADER, ("SCALE 10", "SCALE 100"))},
        [("price 3", "299"), ("asked", "12016")],
        {"price"},
    ),
    Step("a file renamed", {"pricing.c": _PRICING}, [("price 3", "298"), ("asked", "13017")], {"less"}, ["price.c"]),
    Step(
        "and edited under its new name", {"pricing.c": _PRICING_TOO}, [("price 3", "297"), ("asked", "14018")], {"less"}
    ),
    Step(
        "a file that went into another",
        {"total.c": _ONE_FILE},
        [("total 1 1", str(97 + 5))],
        {"tax", "total"},
        ["tax.c"],
    ),
    Step("what moved is edited", {"total.c": _ONE_FILE_TOO}, [("total 1 1", str(97 + 600))], {"tax", "total"}),
    Step(
        "three files at once",
        {
            "pricing.c": _with(_PRICING_TOO, ("return x - 3;", "return x - 4;")),
            "stock.c": _with(STOCK, ("default: return left;", "default: return left * 100;")),
            "coupon.c": _with(_COUPON, ("++given", "given += 2")),
        },
        [("price 3", "296"), ("stock 10", "9000"), ("total 1 2", str(192 + 700 - 5003))],
        {"less", "stock", "next_coupon"},
    ),
    Step("a local static beside another", {"stock.c": _STOCK_TOO}, [("stock 10", "8002")], {"stock"}),
    Step(
        "the static of the third",
        {"pricing.c": _with(_PRICING_TOO, ("return times * 1000", "return times * 10000"))},
        [("price 3", "297"), ("asked", "190023")],
        {"less", "asked"},
    ),
    Step(
        "out of the file again",
        {"total.c": _COUPON_TOTAL, "tax.c": _TAX_AGAIN},
        [("total 1 1", str(97 + 801))],
        {"tax", "total"},
    ),
    Step("a larger switch", {"stock.c": _STOCK_THREE}, [("stock 7", "77"), ("stock 2", "1071")], {"stock"}),
    Step(
        "a function of the C library",
        {
            "coupon.c": _with(
                _COUPON,
                ('#include "coupon.h"', '#include "coupon.h"\n#include <stdlib.h>'),
                ("++given", "given += abs(-3)"),
            )
        },
        [("total 1 2", str(194 + 901 - 5006))],
        {"next_coupon"},
    ),
)


def build_shop(folder: Path, *flags: str, compiler: str = "gcc") -> Project:
    """The program as it is before the first edit."""
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    build(folder, *flags, compiler=compiler)
    return Project(folder, folder / "shop")


def build(folder: Path, *flags: str, compiler: str = "gcc", program: str = "shop") -> Path:
    """What a make would do with the sources that are there now."""
    write_database(folder, *flags, compiler=compiler)
    for row in json.loads((folder / "compile_commands.json").read_text()):
        subprocess.run(row["arguments"], cwd=folder, check=True)
    objects = sorted(path.with_suffix(".o").name for path in folder.glob("*.c"))
    subprocess.run([compiler, *objects, "-o", program], cwd=folder, check=True)
    return folder / program


def make(step: Step, folder: Path, *flags: str, compiler: str = "gcc") -> None:
    """The edit; the build system writes down what there is now."""
    for name, text in step.write.items():
        (folder / name).write_text(text)
    for name in step.remove:
        (folder / name).unlink()
    write_database(folder, *flags, compiler=compiler)


def write_database(folder: Path, *flags: str, compiler: str = "gcc") -> None:
    rows = []
    for source in sorted(folder.glob("*.c")):
        words = [compiler, *flags, "-g", "-MD", "-c", source.name, "-o", source.with_suffix(".o").name]
        rows.append({"directory": str(folder), "file": source.name, "arguments": words})
    (folder / "compile_commands.json").write_text(json.dumps(rows))
