"""Edits of a random program, as a person makes them: one or a few at a time."""

from __future__ import annotations

import re
from copy import deepcopy
from random import Random

from differential.model import Edit, Function, Language, Program


def edit(rng: Random, program: Program, language: Language) -> tuple[Program, list[str]]:
    """As `Generator.edit`."""
    edited = deepcopy(program)
    every = [*_Edits(language).all(), *language.own_edits]
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name, change = rng.choice(every)
        said = change(rng, edited)
        if said:
            done.append(f"{name}: {said}")
    return edited, done


class _Edits:
    def __init__(self, language: Language) -> None:
        self._language = language

    def all(self) -> list[tuple[str, Edit]]:
        return [
            *[("constant", self.constant_in_code)] * 2,
            ("operator", self.operator),
            *[("insert", self.insert)] * 3,
            ("delete", self.delete),
            ("shuffle", self.shuffle),
            ("add function", self.add_function),
            ("remove function", self.remove_function),
            ("add parameter", self.add_parameter),
            ("remove parameter", self.remove_parameter),
            *[("move function", self.move_function)] * 2,
            ("add local static", self.add_local),
            ("remove local static", self.remove_local),
            ("swap local statics", self.swap_locals),
            ("add static", self.add_static),
            ("reorder statics", self.reorder_statics),
            ("initial value", self.initial_value),
            ("table", self.table),
            ("shared", self.shared),
            ("reorder", self.reorder),
            ("linkage", self.linkage),
        ]

    def constant_in_code(self, rng: Random, program: Program) -> str:
        found = self._some_statement(rng, program, self._language.constant_in_code)
        if not found:
            return ""
        function, row = found
        number = self._language.number(rng.randint(1, 99))
        function.statements[row] = replace_one(rng, self._language.constant_in_code, function.statements[row], number)
        return function.name

    def operator(self, rng: Random, program: Program) -> str:
        found = self._some_statement(rng, program, self._language.operator)
        if not found:
            return ""
        function, row = found
        chosen = f" {rng.choice(self._language.operators)} "
        function.statements[row] = replace_one(rng, self._language.operator, function.statements[row], chosen)
        return function.name

    def insert(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        row = rng.randint(0, len(function.statements))
        function.statements.insert(row, self._language.statement(rng, program, function))
        return f"{function.name}: {function.statements[row][:60]}"

    def delete(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        if not function.statements:
            return ""
        return f"{function.name}: {function.statements.pop(rng.randrange(len(function.statements)))[:60]}"

    def shuffle(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        rng.shuffle(function.statements)
        return function.name

    def add_function(self, rng: Random, program: Program) -> str:
        highest = min(f.rank for f in program.functions if f.is_leaf)
        added = self._language.function(rng, f"f{100 + program.number()}", False, highest * rng.random())
        program.functions.insert(rng.randint(0, len(program.functions)), added)
        for name in rng.sample(list(self._language.local_names), rng.choice((0, 1, 2))):
            added.variables.append(self._language.variable(rng, name, is_local=True))
        for _ in range(rng.randint(1, 5)):
            added.statements.append(self._language.statement(rng, program, added))
        return added.name

    def remove_function(self, rng: Random, program: Program) -> str:
        texts = " ".join(s for group in program.constants for s in group)
        free = [f for f in program.functions if not f.is_leaf and not re.search(rf"\b{f.name}\b", texts)]
        if not free:
            return ""
        gone = rng.choice(free)
        program.functions.remove(gone)
        for function in program.functions:
            function.statements = [s for s in function.statements if not re.search(rf"\b{gone.name}\(", s)]
        return gone.name

    def add_parameter(self, rng: Random, program: Program) -> str:
        free = [f for f in program.functions if not f.is_leaf and f.extra is None]
        if not free:
            return ""
        chosen = rng.choice(free)
        chosen.extra = rng.randint(1, 99)
        return chosen.name

    def remove_parameter(self, rng: Random, program: Program) -> str:
        having = [f for f in program.functions if f.extra is not None]
        if not having:
            return ""
        chosen = rng.choice(having)
        chosen.extra = None
        return chosen.name

    def move_function(self, rng: Random, program: Program) -> str:
        """To another file, where everything that it names is known by the same name."""
        files = range(len(self._language.files))
        able = [(row, file) for row in program.functions for file in files if self._may_move(program, row, file)]
        if not able:
            return ""
        function, file = rng.choice(able)
        function.file = file
        return f"{function.name} to {self._language.files[file]}"

    def _may_move(self, program: Program, function: Function, file: int) -> bool:
        if function.is_static or function.is_leaf or function.file == file:
            return False
        text = " ".join(function.statements)
        own = [v.name for v in program.variables[function.file] if v.is_static]
        own += [f.name for f in program.functions if f.file == function.file and f.is_static and f is not function]
        is_known = not any(re.search(rf"\b{name}\b", text) for name in own)
        return is_known and self._language.may_move(program, function, file)

    def add_local(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        free = [name for name in self._language.local_names if name not in [v.name for v in function.variables]]
        if not free:
            return ""
        added = self._language.variable(rng, rng.choice(free), is_local=True)
        function.variables.insert(rng.randint(0, len(function.variables)), added)
        function.statements.append(self._language.use(rng, added, self._language.expression(rng, program, function)))
        return f"{function.name}.{added.name}"

    def remove_local(self, rng: Random, program: Program) -> str:
        owners = [f for f in program.functions if f.variables]
        if not owners:
            return ""
        function = rng.choice(owners)
        gone = function.variables.pop(rng.randrange(len(function.variables)))
        function.statements = [s for s in function.statements if not re.search(rf"\b{gone.name}\b", s)]
        return f"{function.name}.{gone.name}"

    def swap_locals(self, rng: Random, program: Program) -> str:
        owners = [f for f in program.functions if len(f.variables) > 1]
        if not owners:
            return ""
        function = rng.choice(owners)
        function.variables.reverse()
        return function.name

    def add_static(self, rng: Random, program: Program) -> str:
        file = rng.randrange(len(self._language.files))
        added = self._language.variable(rng, f"extra_{program.number()}", is_local=False)
        program.variables[file].insert(rng.randint(0, len(program.variables[file])), added)
        users = [f for f in program.functions if f.file == file]
        for function in rng.sample(users, min(2, len(users))):
            function.statements.append(
                self._language.use(rng, added, self._language.expression(rng, program, function))
            )
        return added.name

    def reorder_statics(self, rng: Random, program: Program) -> str:
        file = rng.randrange(len(self._language.files))
        rng.shuffle(program.variables[file])
        return self._language.files[file]

    def initial_value(self, rng: Random, program: Program) -> str:
        variables = [v for group in program.variables for v in group]
        variables += [v for f in program.functions for v in f.variables]
        numbers = [v for v in variables if v.kind in ("number", "struct")]
        if not numbers:
            return ""
        chosen = rng.choice(numbers)
        chosen.value = rng.randint(0, 99)
        return chosen.name

    def table(self, rng: Random, program: Program) -> str:
        file = rng.randrange(len(self._language.files))
        if not program.constants[file]:
            return ""
        row = rng.randrange(len(program.constants[file]))
        name = constant_name(program.constants[file][row])
        program.constants[file][row] = self._language.constant(rng, program, file, name)
        return f"{self._language.files[file]}: {name}"

    def shared(self, rng: Random, program: Program) -> str:
        rows = [
            row
            for row, text in enumerate(program.shared)
            if self._language.literal.search(text) and not self._language.fixed.search(text)
        ]
        row = rng.choice(rows)
        number = self._language.number(rng.randint(1, 60))
        program.shared[row] = replace_one(rng, self._language.literal, program.shared[row], number)
        return program.shared[row][:40]

    def reorder(self, rng: Random, program: Program) -> str:
        """The order in the files; who may call whom stays, since the statements do."""
        rng.shuffle(program.functions)
        return "functions"

    def linkage(self, rng: Random, program: Program) -> str:
        function = rng.choice(program.functions)
        used_elsewhere = any(
            re.search(rf"\b{function.name}\b", text)
            for file in range(len(self._language.files))
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

    def _some_statement(self, rng: Random, program: Program, pattern: re.Pattern[str]) -> tuple[Function, int] | None:
        found = [
            (f, i)
            for f in program.functions
            for i, s in enumerate(f.statements)
            if pattern.search(s) and not self._language.fixed.search(s)
        ]
        return rng.choice(found) if found else None


def replace_one(rng: Random, pattern: re.Pattern[str], text: str, new: str) -> str:
    """With one match, any, replaced."""
    match = rng.choice(list(pattern.finditer(text)))
    return text[: match.start()] + new + text[match.end() :]


def constant_name(text: str) -> str:
    """Of a table's definition."""
    return next(name for name in ("weights", "names", "ops") if re.search(rf"\b{name}\b", text.partition("=")[0], re.I))
