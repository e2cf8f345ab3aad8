"""Engines as tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import Engine

__all__ = ["engine_html"]

_STEPS = 200  # more make a page slow


def _bytes(number: Any) -> str:
    if not isinstance(number, int):
        return str(number)
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag} style='text-align:left'>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<details open><summary>{escape(title)}</summary><table>{line(head, 'th')}{body}</table></details>" if body else ""


def engine_html(engine: Engine) -> str:
    """An engine as HTML: what goes in and out, what the ranks exchange, what each rank holds, its steps. Safe for any names in the model."""
    said = engine.describe()
    ports = [
        (side, port["name"], port["dtype"], "×".join(map(str, port["shape"])), port["sharding"])
        for side in ("inputs", "outputs")
        for port in said[side]
    ]
    collectives = [(c["operation"], c.get("reduce", ""), c["axis"], c["dtype"], _bytes(c["typical_bytes"]), c["node"], c["note"]) for c in said["collectives"]]
    ranks = [(r["rank"], _bytes(r["weight_bytes"]), _bytes(r["activation_bytes"])) for r in said["ranks"]]
    steps = [(i, s["op"], s["node"], s["kernel"], s["note"]) for i, s in enumerate(said["steps"][:_STEPS])]
    left = len(said["steps"]) - len(steps)
    title = f"{engine.ranks} rank{'s' if engine.ranks > 1 else ''}" + (f", mesh {said['mesh']}" if said["mesh"] else "")
    return (
        f"<b>tandem.Engine</b> for {escape(title)}"
        + _table("inputs and outputs", ("", "name", "type", "shape", "lies"), ports)
        + _table("collectives of a run", ("operation", "reduces by", "axis", "type", "bytes of a rank", "node", "why"), collectives)
        + _table("memory", ("rank", "weights", "activations"), ranks)
        + _table(f"steps{f', {left} more not shown' if left else ''}", ("", "op", "node", "kernel", "note"), steps)
        + _table("notices", ("",), [(notice,) for notice in engine.notices])
    )
