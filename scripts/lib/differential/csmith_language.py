"""C programs by csmith(1), which has been the way to find wrong code in compilers: no undefined behaviour, all of C.

A program computes a checksum of its global variables. Each round is run by a child that is forked for it, so it
begins with the variables as they were initialised, in the process that is patched as in the one that it is compared
with. csmith checks every arithmetic operation and knows where its pointers point, whatever the values of conditions:
edits change values, operators and conditions, and leave bounds of loops and indices of arrays, which are decimal,
alone.
"""

from __future__ import annotations

import re
import subprocess
from copy import deepcopy
from random import Random

from differential.c_language import READ_LINE
from differential.model import Program

_OPTIONS = (
    *("--no-argc", "--max-funcs", "6", "--max-block-depth", "3", "--max-block-size", "3"),
    *("--max-expr-complexity", "5", "--no-volatiles", "--no-packed-struct"),
)
_HEX = re.compile(r"\b0x[0-9A-F]{2,}(?=U?L?L?\b)")
_OPERATOR = re.compile(r"(?<=\)) [|^] (?=[(\w])")
_CONDITION = re.compile(r"^(\s+if) \((.*)\)$", re.M)
_FUNCTIONS = "/* --- FORWARD DECLARATIONS --- */"

MAIN = (
    r"""
#include <unistd.h>
#include <sys/time.h>
#include <sys/wait.h>
"""
    + READ_LINE
    + r"""
int main(void)
{
    static char line[200];
    while (next_line(line, sizeof line)) {
        if (!strncmp(line, "run", 3)) {
            int status;
            pid_t child = fork();
            if (!child) {
                struct itimerval moment = {{0, 0}, {0, 250000}};
                setitimer(ITIMER_PROF, &moment, 0);
                csmith_main();
                fflush(stdout);
                _exit(0);
            }
            waitpid(child, &status, 0);
            if (WIFSIGNALED(status)) printf("killed %d\n", WTERMSIG(status));
        } else if (!strncmp(line, "set", 3)) {
            continue;
        }
        printf(".\n");
        fflush(stdout);
    }
    return 0;
}
"""
)
BASE = "#include <stdio.h>\n#include <string.h>\nint csmith_main(void);\n"


class Csmith:
    """Implements `Generator`."""

    can_pause = False

    def generate(self, rng: Random) -> Program:
        seed = rng.randint(1, 1 << 31)
        words = ["csmith", "--seed", str(seed), *_OPTIONS]
        text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
        text = re.sub(r"\bint main \(void\)", "int csmith_main(void)", text)
        text = text.replace("int print_hash_value = 0;", "int print_hash_value = 1;")
        return Program([], [], [], [text])

    def edit(self, rng: Random, program: Program) -> tuple[Program, list[str]]:
        edited, done = deepcopy(program), []
        for _ in range(rng.choice((2, 3, 4))):
            name, pattern, new = rng.choice(_EDITS)
            head, mark, rest = edited.shared[0].partition(_FUNCTIONS)
            code, main, end = rest.partition("int csmith_main(void)\n{")
            matches = list(pattern.finditer(code, code.find("\n{")))
            matches = [match for match in matches if match.expand(new) != match.group()]
            if not matches:
                continue
            match = rng.choice(matches)
            text = match.expand(new).replace("RANDOM", f"{rng.randint(16, 255):X}")
            code = code[: match.start()] + text + code[match.end() :]
            edited.shared[0] = head + mark + code + main + end
            done.append(f"{name}: {match.group().strip()[:60]}")
        return edited, done

    def render(self, program: Program) -> dict[str, str]:
        return {"main.c": f'#include "base.h"\n{MAIN}', "base.h": BASE, "program.c": program.shared[0]}


_EDITS = (
    ("constant", _HEX, "0xRANDOM"),
    ("function", re.compile(r"\bsafe_(?:sub|mul)_func_(?=u?int)"), "safe_add_func_"),
    ("function", re.compile(r"\bsafe_(?:add|mul)_func_(?=u?int)"), "safe_sub_func_"),
    ("decrement", re.compile(r"(?<=[(\s])--(?=[gl(])"), "++"),
    ("assignment", re.compile(r" [|^&]= "), " = "),
    ("operator", _OPERATOR, " | "),
    ("operator", _OPERATOR, " ^ "),
    ("condition", _CONDITION, r"\1 (!(\2))"),
)
