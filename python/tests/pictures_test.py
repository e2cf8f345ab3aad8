"""Engines and networks as tables in notebooks and as graphs for Graphviz."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import tandem
from conftest import MODELS, save_onnx
from onnx import TensorProto, helper


class Elements(HTMLParser):
    """Elements and text; fails where they are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def bert():
    return tandem.build(MODELS / "bert_dynamo23.onnx", mesh={"cp": 2, "tp": 2})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """An engine of whose names each means something to HTML or DOT."""
    name = '<script>alert("1")</script>\\" -> {x}'
    node = helper.make_node("MatMul", [name, "w"], ["y\n;}"], name)
    weights = {"w": np.ones((4, 4), np.float32)}
    kind = (TensorProto.FLOAT, [2, 4])
    return name, tandem.build(save_onnx(tmp_path_factory.mktemp("m") / "m.onnx", [node], {name: kind}, {"y\n;}": kind}, weights))


def test_notebook_table(bert):
    page = Elements(bert._repr_html_())
    report = bert.describe()
    for words in (
        "4 ranks",
        "input_ids",
        "pooler_output",
        "model.encoder.layer.1",
        "all_reduce sum over tp",
        "Attention",
        "sends 32.0 KiB a run",
    ):
        assert words in page.text
    assert sum(tag == "tr" for tag, _ in page.seen) > len(report["steps"])
    colours = {m[1] for _, attrs in page.seen if (m := re.search(r"background:(#\w+)", attrs.get("style") or ""))}
    assert len(colours) == 2  # an axis each
    assert not any(tag in ("script", "link", "img") for tag, _ in page.seen)


def test_one_rank_has_no_colours(mlp):
    page = tandem.build(mlp.path)._repr_html_()
    assert "background" not in page and "1 rank " in page


def test_names_are_text(hostile):
    name, engine = hostile
    page = Elements(engine._repr_html_())
    assert name in page.text and not any(tag == "script" for tag, _ in page.seen)


def edges(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^  (\w+) -> (\w+) \[", text, re.M)


def test_graph_has_every_step_and_edge(bert):
    text, report = bert.to_graphviz(), bert.describe()
    assert len(re.findall(r"^ +step\d+ \[", text, re.M)) == len(report["steps"])
    for layer in {step["layer"] for step in report["steps"]} - {""}:
        assert f'label="{layer}"' in text
    coloured = re.findall(r'step(\d+) \[.*fillcolor="#', text)
    assert [int(n) for n in coloured] == [use["step"] for use in report["collectives"]]
    assert "@cp" in text and "Σtp" in text and "all_reduce sum over tp, 4.0 KiB a rank" in text
    # Every activation that a step reads comes from somewhere, and every step leads to an output.
    into = {to for _, to in edges(text)}
    for number, step in enumerate(report["steps"]):
        reads = [v for v in step["operands"] if v >= 0 and report["values"][v]["kind"] != "weight"]
        assert (f"step{number}" in into) == bool(reads), step
    assert {source for source, _ in edges(text)} >= {f"step{n}" for n in range(len(report["steps"]))}
    assert {"output0", "output1"} <= into


def test_steps_in_place_and_views_keep_their_order(bert):
    """What lies in the memory of an earlier value is still made by its own step."""
    text, report = bert.to_graphviz(), bert.describe()
    for source, to in edges(text):
        if source.startswith("step") and to.startswith("step"):
            assert int(source[4:]) < int(to[4:])
    in_place = [s for s, step in enumerate(report["steps"]) if any("alias_of" in report["values"][v] for v in step["results"])]
    assert in_place, "nothing is in place: the test shows nothing"
    assert {f"step{s}" for s in in_place} <= {source for source, _ in edges(text)}


@pytest.mark.parametrize("which", ["bert", "hostile"])
def test_dot_reads_it(which, request):
    if not (dot := shutil.which("dot")):
        pytest.skip("Graphviz is not installed (apt install graphviz)")
    made = request.getfixturevalue(which)
    engine = made[1] if which == "hostile" else made
    done = subprocess.run([dot, "-Tplain"], input=engine.to_graphviz(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    words = [line.split(" ")[0] for line in done.stdout.splitlines()]
    report = engine.describe()
    assert words.count("node") == len(report["steps"]) + len(report["inputs"]) + len(report["outputs"])
    assert words.count("edge") == len(edges(engine.to_graphviz()))


def test_sizes(bert):
    small, large = bert.describe(at={"batch": 1}), bert.describe({"batch": 4})
    assert small["activation_bytes_for"]["batch"] == 1
    assert large["ranks"][0]["sent_bytes"] == 4 * small["ranks"][0]["sent_bytes"]
    assert "batch=4" in bert.to_graphviz(at={"batch": 4})
    with pytest.raises(tandem.Error, match="no size 'bath'"):
        bert.describe(at={"bath": 1})
    with pytest.raises(tandem.Error, match="batch=0 is outside"):
        bert.to_graphviz(at={"batch": 0})


# ---- networks


@pytest.fixture(scope="module")
def megatron():
    net = tandem.Network(mesh={"tp": 2})
    x = net.input("x", "f32", ["B", 8], placement="same")
    up, down = (net.weight(name, np.ones((8, 8), np.float32), placement=place) for name, place in (("up", "1:tp"), ("down", "0:tp")))
    h = net.relu(x @ up + np.ones(4, np.float32), name="block.0.relu")
    net.output("y", net.all_reduce(h @ down, axis="tp", name="block.0.sum"), placement="same")
    net.output("h", h)
    return net


def test_network_as_data(megatron):
    report = megatron.describe()
    assert report["axes"] == [{"name": "tp", "size": 2}]
    assert [(node["op"], node.get("ranks")) for node in report["nodes"]] == [
        ("MatMul", None), ("Constant", None), ("Add", None), ("Relu", None), ("MatMul", None), ("AllReduce", 2)
    ]  # fmt: skip
    values = {value["name"]: value for value in report["values"]}
    assert (values["up"]["shape"], values["up"]["split"]) == ([8, 4], [[], ["tp"]])
    assert (values["down"]["shape"], values["down"]["split"]) == ([4, 8], [["tp"], []])
    assert [(port["name"], port["varying"]) for port in report["outputs"]] == [("y", []), ("h", ["tp"])]
    made = {v for node in report["nodes"] for v in node["results"]}
    for node in report["nodes"]:
        assert all(report["values"][v]["kind"] != "result" or v in made for v in node["operands"])


def test_network_in_a_notebook(megatron):
    page = Elements(megatron._repr_html_())
    for words in (
        "the program of one rank of tp=2",
        "same on all ranks",
        "each rank's own",
        "AllReduce",
        "over axis tp",
        "block.0.sum",
        "weights: 2",
        "nodes: 6",
    ):
        assert words in page.text, words
    colours = {m[1] for _, attrs in page.seen if (m := re.search(r"background:(#\w+)", attrs.get("style") or ""))}
    assert len(colours) == 1  # one axis
    assert sum(tag == "tr" for tag, _ in page.seen) == 3 + 2 + 1 + 6
    plain = tandem.Network.from_onnx(MODELS / "bert_dynamo23.onnx")
    page = Elements(plain._repr_html_())
    assert "the whole program" in page.text and "input_ids" in page.text and "background" not in plain._repr_html_()
    assert "nodes: 0" in Elements(tandem.Network()._repr_html_()).text


def test_network_as_graph(megatron):
    text = megatron.to_graphviz()
    assert text.count("fillcolor") == 2 and "AllReduce" in text and "over axis tp" in text  # the exchange, and the default
    assert "f32[8,4@tp] of weights" in text and "f32[4] of constant" in text and 'label="block.0"' in text
    assert sorted(edges(text)) == sorted(
        [
            ("input0", "step0"),
            ("step0", "step1"),
            ("step1", "step2"),
            ("step2", "step3"),
            ("step3", "step4"),
            ("step4", "output0"),
            ("step2", "output1"),
        ]
    )
    plain = tandem.Network.from_onnx(MODELS / "bert_dynamo23.onnx")
    drawn = plain.to_graphviz()
    kept = [node for node in plain.describe()["nodes"] if node["op"] != "Constant"]
    assert len(re.findall(r"^ +step\d+ \[label", drawn, re.M)) == len(kept)


def test_names_of_networks_are_text():
    net, name = tandem.Network(), '<script>alert("1")</script>\\" -> {x}'
    x = net.input(name, "f32", [2])
    net.output("y\n;}", net.relu(x, name=name))
    page = Elements(net._repr_html_())
    assert name in page.text and not any(tag == "script" for tag, _ in page.seen)
    if shutil.which("dot"):
        drawn = subprocess.run(["dot", "-Tsvg"], input=net.to_graphviz(), capture_output=True, text=True, check=True).stdout
        assert "script" in drawn and "<script" not in drawn
    else:
        assert edges(net.to_graphviz()) == [("input0", "step0"), ("step0", "output0")]
