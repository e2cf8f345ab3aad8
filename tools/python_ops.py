#!/usr/bin/env python3
"""Writes python/tandem/ops.py, a method per op, from the list of ops that the compiled package has.

PYTHONPATH=build/cpu/python tools/python_ops.py           renew the file
PYTHONPATH=build/cpu/python tools/python_ops.py --check   exit 1 if it is stale
"""

from __future__ import annotations

import keyword
import sys
import textwrap
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "python" / "tandem" / "ops.py"
# Written by hand in network.py, where their arguments mean a little more.
BY_HAND = {"Attention", "Constant"}

HEAD = '''"""The methods of Network, one per op. Made by tools/python_ops.py from src/ops/ops.def; do not edit. As long as their list."""
# ruff: noqa: RUF002 - formulas are written as in docs/ops.md

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from . import _core
from ._core import Value
from .words import Dim, DTypeLike, Operand, dtype_word


class NetworkOps(_core._Network):
    """Every op as a method."""

    def _add(self, op: str, operands: Sequence[Any], attributes: dict[str, Any], name: str) -> Value:
        return self._add_all(op, list(operands), attributes, name)[0]
'''

TYPES = {
    "integer": "int", "real": "float", "bool": "bool", "text": "str", "integers": "Sequence[int]", "dim": "Dim", "dims": "Sequence[Dim]",
    "dtype": "DTypeLike", "tensor": "Any", "lists of ranks": "Sequence[Sequence[int]]",
}  # fmt: skip


def annotation(attribute: Any) -> str:
    if attribute.name == "num_ranks":
        return "int | None"
    if attribute.words:
        return f"Literal[{', '.join(repr_text(word) for word in attribute.words)}]"
    return TYPES[attribute.kind]


def repr_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def default(attribute: Any) -> str:
    value = attribute.initial
    if attribute.name == "num_ranks" or attribute.kind == "tensor":
        return "None"
    if isinstance(value, str):
        return repr_text(value)
    if isinstance(value, list):
        return f"({', '.join(map(str, value))})" if value else "()"
    return repr(value)


def method_name(op: Any) -> str:
    return op.method + "_" if keyword.iskeyword(op.method) else op.method


def parameters(op: Any) -> list[str]:
    """As they stand in the signature. The first attribute may be given by position where operands leave no doubt."""
    if op.variadic:
        operands = [f"{op.operands[0].name}: Sequence[Operand]"]
    else:
        operands = [f"{o.name}: Operand{' | None = None' if o.optional else ''}" for o in op.operands]
    attributes = [f"{a.name}: {annotation(a)} = {default(a)}" for a in op.attributes]
    by_position = 0 if any(o.optional for o in op.operands) else 1
    return ["self", *operands, *attributes[:by_position], "*", *attributes[by_position:], 'name: str = ""']


def wrapped(text: str, indent: int) -> str:
    pad = " " * indent
    return textwrap.fill(text, 140, initial_indent=pad, subsequent_indent=pad + "    ", break_long_words=False, break_on_hyphens=False)


def sentence(text: str) -> str:
    text = text[0].upper() + text[1:] if text.split()[0].isalpha() and len(text.split()[0]) > 1 else text
    return text.replace("\\", "\\\\")


def arguments(op: Any) -> list[str]:
    lines = [wrapped(f"{o.name}: {o.doc}.", 12) for o in op.operands if o.doc]
    for a in op.attributes:
        doc = a.doc + ("; None: as axis, groups or mesh say" if a.name == "num_ranks" else "")
        lines.append(wrapped(f"{a.name}: {doc}.", 12))
    return lines


def entry(attribute: Any) -> str:
    """As it stands among the attributes that are set."""
    name = attribute.name
    if attribute.kind == "tensor":
        return f'**({{}} if {name} is None else {{"{name}": {name}}})'
    return f'"{name}": ' + (f"dtype_word({name})" if attribute.kind == "dtype" else name)


def method(op: Any) -> str:
    signature = f"    def {method_name(op)}({', '.join(parameters(op))}) -> "
    signature += "Value:" if len(op.results) == 1 else f"tuple[{', '.join('Value' for _ in op.results)}]:"
    if len(signature) > 140:
        inner = "\n".join(f"        {p}," for p in parameters(op))
        signature = f"    def {method_name(op)}(\n{inner}\n    ) {signature[signature.rindex('->') :]}"
    lines = [signature]
    doc = f'"""{sentence(op.doc)}'
    if arguments(op):
        lines += [wrapped(doc, 8).replace("\n            ", "\n        "), "", "        Args:", *arguments(op), '        """']
    else:
        lines.append(wrapped(doc + '"""', 8).replace("\n            ", "\n        "))
    operands = op.operands[0].name if op.variadic else f"[{', '.join(o.name for o in op.operands)}]"
    given = ", ".join(map(entry, op.attributes))
    call = f'("{op.name}", {operands}, {{{given}}}, name)'
    result = f"        return self._add{call}"
    if len(op.results) > 1:
        names = ", ".join(f"r{i}" for i in range(len(op.results)))
        result = f"        {names} = self._add_all{call}\n        return {names}"
    if max(map(len, result.splitlines())) > 140:
        result = "        attributes: dict[str, Any] = {\n" + wrapped(given + ",", 12).replace("\n                ", "\n            ")
        call = f'("{op.name}", {operands}, attributes, name)'
        result += "\n        }  # fmt: skip\n"
        result += (
            f"        return self._add{call}" if len(op.results) == 1 else f"        {names} = self._add_all{call}\n        return {names}"
        )
    return "\n".join([*lines, result]) + "\n"


def text() -> str:
    """The whole file."""
    from tandem import _core

    return HEAD + "".join("\n" + method(op) for op in _core.list_ops() if op.name not in BY_HAND)


def main() -> int:
    made = text()
    if "--check" in sys.argv:
        return 0 if FILE.exists() and FILE.read_text(encoding="utf-8") == made else 1
    FILE.write_text(made, encoding="utf-8")
    print(f"{FILE}: {made.count('    def ') - 1} methods")
    return 0


if __name__ == "__main__":
    sys.exit(main())
