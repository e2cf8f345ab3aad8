"""Engines and networks as tables for notebooks and as graphs for Graphviz, made from what their describe() says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

__all__ = ["engine_html", "graphviz", "network_graphviz", "network_html"]

_Report = dict[str, Any]
_COLOURS = ["#1f6fd6", "#d06a00", "#1c8a3d", "#7a45c9", "#0f8389", "#c22f6e", "#8f7a00", "#80644a"]
_STEPS = 200  # more make a notebook slow
_CELL = "text-align:left;vertical-align:top;padding:.15em .7em .15em .3em"


def _colour(report: _Report, axis: str) -> str:
    names = [a["name"] for a in report["axes"]]
    return _COLOURS[names.index(axis) % len(_COLOURS)] if axis in names else "#666666"


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"


def _exchange(use: _Report) -> str:
    over = use["axis"] or (f"ranks {use['groups']}" if use["groups"] else "all ranks")
    return f"{use['operation']}{' ' + use['reduce'] if 'reduce' in use else ''} over {over}, {_size(use['typical_bytes'])} a rank"


def _over(node: _Report) -> str:
    """Which ranks a node of a network exchanges with."""
    over = f"axis {node['axis']}" if node["axis"] else f"ranks {node['groups']}" if node["groups"] else "all ranks"
    return f"over {over}"


def _sizes(report: _Report) -> str:
    return ", ".join(f"{name}={size}" for name, size in report["activation_bytes_for"].items()) or "the fixed shapes"


def _extents(value: _Report) -> Iterator[tuple[str, list[str]]]:
    """Per dimension its extent and the axes that split it."""
    return zip(map(str, value["shape"]), value.get("split") or [[]] * len(value["shape"]), strict=True)


# ---- notebooks


def _html_value(report: _Report, value: _Report) -> str:
    parts = []
    for extent, axes in _extents(value):
        style = "".join(f";background:{_colour(report, axis)}55" for axis in axes[:1])
        name = f"<sub>{escape(' '.join(axes))}</sub>" if axes else ""
        parts.append(f'<span style="padding:0 .3em{style}">{escape(extent)}{name}</span>')
    sums = "".join(
        f' <span style="border:1px dashed {_colour(report, a)};padding:0 .3em">Σ {escape(a)}</span>' for a in value.get("partial", [])
    )
    return f"<code>{escape(value['dtype'])}[{','.join(parts)}]</code>{sums}"


def _html_row(cells: list[str], tag: str = "td", style: str = "") -> str:
    return f'<tr style="{style}">' + "".join(f'<{tag} style="{_CELL}">{cell}</{tag}>' for cell in cells) + "</tr>"


def _html_steps(report: _Report) -> Iterator[str]:
    uses = {use["step"]: use for use in report["collectives"]}
    layer = ""
    for number, step in enumerate(report["steps"][:_STEPS]):
        if step["layer"] != layer:
            layer = step["layer"]
            yield f'<tr><th colspan="5" style="{_CELL}">{escape(layer or "outside of numbered layers")}</th></tr>'
        made = [report["values"][v] for v in step["results"]]
        use = uses.get(number)
        style = f"border-left:4px solid {_colour(report, use['axis'])}" if use else ""
        why = escape("; ".join(filter(None, [_exchange(use) if use else "", step["note"]])))
        what = f"{escape(step['op'])}<br><small>{escape(step['node'])}</small>"
        shapes = "<br>".join(_html_value(report, value) for value in made)
        yield _html_row([str(number), what, shapes, _size(sum(value["bytes"] for value in made)), why], style=style)


def engine_html(report: _Report) -> str:
    """One element for a notebook: what the engine is, its inputs and outputs, and its steps with shardings and bytes."""
    rank = report["ranks"][0]
    axes = " ".join(
        f'<span style="background:{_colour(report, a["name"])}55;padding:0 .4em">{escape(a["name"])}={a["size"]}</span>'
        for a in report["axes"]
    )
    sent = f", sends {_size(rank['sent_bytes'])} a run" if report["collectives"] else ""
    head = (
        f"<p><b>tandem.Engine</b> for {report['world_size']} rank{'s' if report['world_size'] > 1 else ''} {axes}<br>"
        f"a rank holds {_size(rank['weight_bytes'])} of weights, {_size(rank['activation_bytes'])} of activations{sent} "
        f"<small>(at {escape(_sizes(report))})</small></p>"
    )
    ports = "".join(
        _html_row([kind, escape(port["name"]), _html_value(report, port)]) for kind in ("input", "output") for port in report[kind + "s"]
    )
    steps = _html_row(["step", "what", "makes", "bytes", "why it is here"], "th") + "".join(_html_steps(report))
    left = len(report["steps"]) - _STEPS
    count = f"{len(report['steps'])} steps, {len(report['collectives'])} collectives" + (
        f"; the first {_STEPS} of them" if left > 0 else ""
    )
    notices = "".join(f"<p>{escape(notice)}</p>" for notice in report["notices"])
    return (
        f'<div class="tandem-engine">{head}{notices}<table>{ports}</table>'
        f"<details open><summary>{count}</summary>"
        f'<div style="max-height:40em;overflow:auto"><table>{steps}</table></div></details></div>'
    )


def _placement(report: _Report, port: _Report) -> str:
    if not report["mesh"]:
        return ""
    return "each rank's own" if port["varying"] else "split" if any(port["split"]) else "same on all ranks"


def _node_name(node: _Report) -> str:
    return escape(node["op"]) + (f"<br><small>{escape(node['node'])}</small>" if node["node"] else "")


def _html_nodes(report: _Report) -> Iterator[str]:
    values = report["values"]
    for number, node in enumerate(report["nodes"][:_STEPS]):
        style = f"border-left:4px solid {_colour(report, node['axis'])}" if "axis" in node else ""
        takes = "<br>".join(escape(values[v]["name"]) if v >= 0 else "none" for v in node["operands"])
        makes = "<br>".join(f"{escape(values[v]['name'])} {_html_value(report, values[v])}" for v in node["results"])
        words = [escape(_over(node))] if "axis" in node else []
        told = {"axis", "groups", "num_ranks"} if words else set()
        words += [f"{escape(name)} = {escape(text)}" for name, text in node["attributes"].items() if name not in told]
        yield _html_row([str(number), _node_name(node), takes, makes, "<br>".join(words)], style=style)


def network_html(report: _Report) -> str:
    """One element for a notebook: what the network is, its inputs, weights and outputs, and its nodes with what they take and make."""
    axes = " ".join(
        f'<span style="background:{_colour(report, a["name"])}55;padding:0 .4em">{escape(a["name"])}={a["size"]}</span>'
        for a in report["axes"]
    )
    ports = "".join(
        _html_row([kind, escape(port["name"]), _html_value(report, port), _placement(report, port)])
        for kind in ("input", "output")
        for port in report[kind + "s"]
    )
    weights = "".join(
        _html_row(["weight", escape(v["name"]), _html_value(report, v), ""]) for v in report["values"] if v["kind"] == "weight"
    )
    nodes = _html_row(["node", "what", "takes", "makes", "told"], "th") + "".join(_html_nodes(report))
    left = len(report["nodes"]) - _STEPS
    count = f"nodes: {len(report['nodes'])}" + (f"; the first {_STEPS} of them" if left > 0 else "")
    notices = "".join(f"<p>{escape(notice)}</p>" for notice in report["notices"])
    scroll = '<div style="max-height:40em;overflow:auto"><table>'
    return (
        f'<div class="tandem-network"><p><b>tandem.Network</b>: {_whose(report)}{axes}</p>{notices}<table>{ports}</table>'
        f"<details><summary>weights: {weights.count('<tr')}</summary>{scroll}{weights}</table></div></details>"
        f"<details open><summary>{count}</summary>{scroll}{nodes}</table></div></details></div>"
    )


# ---- Graphviz


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _dot_value(value: _Report) -> str:
    dims = ",".join(extent + "".join(f"@{axis}" for axis in axes) for extent, axes in _extents(value))
    more = [f" Σ{axis}" for axis in value.get("partial", [])] + [f" ≠{axis}" for axis in value.get("varying", [])]
    return f"{value['dtype']}[{dims}]" + "".join(more)


def _axis_of(value: _Report) -> str:
    return next((axis for axes in value.get("split", []) for axis in axes), next(iter(value.get("partial", [])), ""))


class _Dot:
    def __init__(self, report: _Report) -> None:
        self.report = report
        self.values: list[_Report] = report["values"]
        self.made_by = {v: f"step{s}" for s, step in enumerate(report["steps"]) for v in step["results"]}
        self.made_by |= {port["value"]: f"input{i}" for i, port in enumerate(report["inputs"])}

    def maker(self, value: int) -> str | None:
        """The node that a value comes from, through views; None for weights."""
        while value not in self.made_by:
            if "alias_of" not in self.values[value]:
                return None
            value = self.values[value]["alias_of"]
        return self.made_by[value]

    def nodes(self) -> Iterator[str]:
        for side in ("input", "output"):
            for i, port in enumerate(self.report[side + "s"]):
                yield f"  {side}{i} [shape=ellipse, label={_quoted(port['name'] + chr(10) + _dot_value(port))}];"
        layers: dict[str, list[str]] = {}
        uses = {use["step"]: use for use in self.report["collectives"]}
        for number, step in enumerate(self.report["steps"]):
            layers.setdefault(step["layer"], []).append(self.step(number, step, uses.get(number)))
        for i, (layer, lines) in enumerate(layers.items()):
            if not layer:
                yield from (f"  {line}" for line in lines)
                continue
            yield f"  subgraph cluster{i} {{"
            yield f'    label={_quoted(layer)}; color="#999999"; style=rounded;'
            yield from (f"    {line}" for line in lines)
            yield "  }"

    def step(self, number: int, step: _Report, use: _Report | None) -> str:
        label = f"{number} {step['op']}\n{step['node']}" + (f"\n{_exchange(use)}" if use else "")
        weights = [self.values[v] for v in step["operands"] if v >= 0 and self.values[v]["kind"] == "weight"]
        label += "".join(f"\n{_dot_value({**w, 'split': self.report['weights'][w['weight']]['split']})} of weights" for w in weights)
        look = f', fillcolor="{_colour(self.report, use["axis"])}", fontcolor="white", shape=box' if use else ""
        return f"step{number} [label={_quoted(label)}{look}];"

    def edge(self, value: int, to: str) -> str | None:
        maker = self.maker(value)
        if maker is None:
            return None
        axis = _axis_of(self.values[value])
        colour = f', color="{_colour(self.report, axis)}", penwidth=2' if axis else ""
        return f"  {maker} -> {to} [label={_quoted(_dot_value(self.values[value]))}{colour}];"

    def edges(self) -> Iterator[str]:
        for number, step in enumerate(self.report["steps"]):
            for value in dict.fromkeys(v for v in step["operands"] if v >= 0):
                if line := self.edge(value, f"step{number}"):
                    yield line
        for i, port in enumerate(self.report["outputs"]):
            if line := self.edge(port["value"], f"output{i}"):
                yield line


class _NetworkDot(_Dot):
    """Nodes instead of steps; constants are told in those that use them."""

    def __init__(self, report: _Report) -> None:
        constants = {v for node in report["nodes"] if node["op"] == "Constant" for v in node["results"]}
        steps = [{**node, "layer": _layer(node["node"])} for node in report["nodes"] if node["op"] != "Constant"]
        uses = [{"step": number, "axis": node["axis"]} for number, node in enumerate(steps) if "axis" in node]
        super().__init__({**report, "steps": steps, "collectives": uses})
        self.told = {v: "constant" for v in constants} | {v: "weights" for v, value in enumerate(self.values) if value["kind"] == "weight"}

    def step(self, number: int, step: _Report, use: _Report | None) -> str:
        label = step["op"] + (f"\n{step['node']}" if step["node"] else "") + (f"\n{_over(step)}" if use else "")
        label += "".join(f"\n{_dot_value(self.values[v])} of {self.told[v]}" for v in step["operands"] if v in self.told)
        look = f', fillcolor="{_colour(self.report, use["axis"])}", fontcolor="white", shape=box' if use else ""
        return f"step{number} [label={_quoted(label)}{look}];"


def _layer(node: str) -> str:
    """Up to the first number in a name such as "encoder/layer.3/query"."""
    words = re.split(r"[/.]+", node.strip("/"))
    numbered = next((i for i, word in enumerate(words[:-1]) if word.isdigit()), None)
    return "" if numbered is None else ".".join(words[: numbered + 1])


def _whose(report: _Report) -> str:
    """Whose program a network is."""
    if report["mesh"]:
        return "the program of one rank of "
    return "the program of one rank" if any("axis" in node for node in report["nodes"]) else "the whole program"


def network_graphviz(report: _Report) -> str:
    """DOT text of a network: one node per op, in a box per layer."""
    return _text("network", _whose(report) + report["mesh"], _NetworkDot(report))


def graphviz(report: _Report) -> str:
    """DOT text: one node per step, in a box per layer; exchanges in the colour of their axis; edges with type and sharding."""
    return _text("engine", f"mesh {report['mesh'] or 'of one rank'}, bytes at {_sizes(report)}", _Dot(report))


def _text(name: str, title: str, dot: _Dot) -> str:
    lines = [
        f"digraph {name} {{",
        f"  label={_quoted(title)};",
        '  node [shape=box, style="filled,rounded", fillcolor="#eef1f4", fontname="sans-serif", fontsize=10];',
        '  edge [fontname="sans-serif", fontsize=8, color="#888888"];',
        *dot.nodes(),
        *dot.edges(),
        "}",
    ]
    return "\n".join(lines) + "\n"
