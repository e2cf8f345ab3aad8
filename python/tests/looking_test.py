"""What people see: tables in notebooks, progress on terminals, messages of the logger."""

import html.parser
import io
import logging
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
import tandem
from tandem.progress import Progress


class Tags(html.parser.HTMLParser):
    """Fails for tags that do not close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_engine_as_html(mlp):
    page = tandem.build(mlp.path, mesh={"tp": 2})._repr_html_()
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    for words in ("2 ranks", "tp=2", "all_reduce", "MatMul", "x", "of weights", "tp"):
        assert words in tags.text or any(words in text for text in tags.text), words


def test_names_cannot_break_the_page(folder):
    from conftest import save_onnx
    from onnx import TensorProto, helper

    bad = "<script>alert('x')</script>&"
    kind = (TensorProto.FLOAT, [2])
    path = save_onnx(folder / "bad_name.onnx", [helper.make_node("Relu", [bad], ["y"], bad)], {bad: kind}, {"y": kind})
    engine = tandem.build(path)
    assert "<script>" not in engine._repr_html_() and "&lt;script&gt;" in engine._repr_html_()
    with tandem.load(engine) as model:  # names need not be those of Python
        np.testing.assert_array_equal(model({bad: np.array([-1, 1], np.float32)})["y"], [0, 1])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tandem.progress.time.monotonic", lambda: now[0])
    stream = Terminal()
    with Progress(stream=stream) as progress:
        for step in range(40):
            progress.callback("reading", step / 40)
            now[0] += 0.05
            assert (stream.getvalue() != "") == (now[0] > 101.05), now  # nothing in the first second
    shown = stream.getvalue()
    assert "[############............]  52% reading" in shown
    assert shown.endswith("\r") and shown.rstrip("\r").endswith(" ")  # wiped


def test_progress_in_a_notebook():
    class Cell(io.StringIO):
        pass

    Cell.__module__ = "ipykernel.iostream"  # whose streams are no terminals
    with Progress(stream=Cell()) as progress:
        assert progress.callback is not None


def test_no_progress_where_nobody_watches():
    assert Progress(stream=io.StringIO()).callback is None
    assert Progress(False, stream=Terminal()).callback is None
    told = print
    assert Progress(told, stream=io.StringIO()).callback is told
    assert Progress(True, stream=io.StringIO()).callback is not None


@pytest.mark.parametrize(
    "work", ["tandem.build(path, progress=shown)", "tandem.load(engine, progress=shown)", "tandem.load(path, progress=shown, ranks=2)"]
)
def test_a_terminal_sees_a_forced_bar_and_a_pipe_nothing(mlp, work):
    code = "import sys, tandem; path, shown = sys.argv[1], True if sys.argv[2] == '1' else None\n"
    code += f"engine = tandem.build(path, progress=False); {work}"
    leader, follower = pty.openpty()
    subprocess.run([sys.executable, "-c", code, mlp.path, "1"], stderr=follower, check=True, timeout=60)
    os.close(follower)
    assert b"%" in os.read(leader, 4096)
    os.close(leader)
    silent = subprocess.run([sys.executable, "-c", code, mlp.path, "0"], capture_output=True, check=True, timeout=60)
    assert (silent.stdout, silent.stderr) == (b"", b"")


@pytest.mark.parametrize(("mesh", "isolate"), [(None, "threads"), ({"tp": 2}, "threads"), ({"tp": 2}, "processes")])
def test_loading_tells_how_far_it_is(mlp, mesh, isolate):
    told, engine = [], tandem.build(mlp.path, mesh=mesh)
    with tandem.load(engine, isolate=isolate, progress=lambda what, done: told.append((what, done))) as model:
        assert told == sorted(told, key=lambda one: one[1]) and {what for what, _ in told} == {"loading weights"}
        assert all(0 <= done <= 1 for _, done in told) and told[-1][1] == 1
        before = len(told)
        model(x=mlp.inputs())
        assert len(told) == before  # it is over


@pytest.mark.parametrize(("mesh", "isolate"), [(None, "threads"), ({"tp": 2}, "threads"), ({"tp": 2}, "processes")])
def test_who_is_told_may_end_the_loading(mlp, mesh, isolate):
    def told(what, done):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        tandem.load(tandem.build(mlp.path, mesh=mesh), isolate=isolate, progress=told)
    with tandem.load(tandem.build(mlp.path, mesh=mesh), isolate=isolate) as model:  # nothing is broken by it
        np.testing.assert_allclose(model(x=mlp.inputs())["out"], mlp(mlp.inputs()), rtol=1e-4, atol=1e-4)


def test_logging(mlp, caplog):
    with caplog.at_level(logging.DEBUG, logger="tandem"):
        engine = tandem.build(mlp.path, mesh={"tp": 2})
    assert any("built an engine for 2 ranks" in record.message and "tp=2" in record.message for record in caplog.records)
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == engine.notices
    done = subprocess.run(
        [sys.executable, "-c", "import sys, tandem; tandem.build(sys.argv[1])", mlp.path], capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
