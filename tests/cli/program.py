"""The program under test, small ONNX models made for it, and processes watched through /proc."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).resolve().parent.parent / "models"
TANDEM = os.environ.get("TANDEM", str(MODELS.parent.parent / "build/cpu/bin/tandem"))
PATIENCE = 60  # seconds; only to tell an end from a hang, also on a busy machine


def model_path(name: str) -> str:
    return str(MODELS / f"{name}.onnx")


def cases_path(name: str) -> str:
    return str(MODELS / f"{name}.safetensors")


class ProgramTest(unittest.TestCase):
    """Runs the program in a fresh folder, and says what it should answer."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tandem-cli-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_program(self, *words: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [TANDEM, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE * 2, cwd=self.folder, check=False
        )

    def succeed(self, *words: object) -> str:
        done = self.run_program(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def succeed_json(self, *words: object) -> dict:
        return json.loads(self.succeed(*words, "--json"))

    def refuse(self, *words: object, code: str, says: list[str], exit_code: int = 1, node: bool = False) -> dict:
        """Both forms of an error: the exit code, and the words on stderr; with --json also the code, on stdout."""
        plain = self.run_program(*words)
        self.assertEqual(plain.returncode, exit_code, plain.stderr or plain.stdout)
        self.assertEqual(plain.stdout, "", "an error leaves nothing on stdout")
        done = self.run_program(*words, "--json")
        self.assertEqual(done.returncode, exit_code, done.stderr)
        error = json.loads(done.stdout)["error"]
        self.assertEqual(error["code"], code, error)
        self.assertEqual("node" in error, node, error)
        for word in says:
            self.assertIn(word, plain.stderr)
            self.assertIn(word, error["message"])
        return error

    def save(self, model: onnx.ModelProto, name: str = "model.onnx", **options: object) -> Path:
        path = self.folder / name
        onnx.save(model, path, **options)
        return path


def tensor(name: str, dims: list, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32), name)


def make_model(nodes: list, inputs: list, outputs: list, weights: tuple = (), opset: int = 17, domains: tuple = ()) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def product(width: int = 8) -> onnx.ModelProto:
    """y = x w1 w2, with x of [rows, width]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "middle"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    weights = (weight("w1", width, 2 * width), weight("w2", 2 * width, width))
    return make_model(nodes, [tensor("x", ["rows", width])], [tensor("y", ["rows", width])], weights)


def lookup() -> onnx.ModelProto:
    """y = table[ids], with a table of 6 rows."""
    node = helper.make_node("Gather", ["table", "ids"], ["y"], "embedding/lookup")
    return make_model([node], [tensor("ids", ["n"], TensorProto.INT64)], [tensor("y", ["n", 4])], (weight("table", 6, 4),))


# ---- processes


def is_alive(pid: int) -> bool:
    """False also for a process that has ended and is not yet reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] not in "ZX":
                found.append(int(entry.name))
    return sorted(found)


def wait_until(holds, seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Running:
    """The program in the background; whatever is left of it ends with the block."""

    def __init__(self, test: ProgramTest, *words: object) -> None:
        self.process = subprocess.Popen(
            [TANDEM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=test.folder
        )
        self.ranks: list[int] = []

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [*self.ranks, self.process.pid]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def wait_for_ranks(self, count: int) -> list[int]:
        """Their processes by rank, once all of them have started to compute."""
        assert wait_until(lambda: len(children_of(self.process.pid)) == count or self.process.poll() is not None), "no ranks"
        named = {}
        assert wait_until(lambda: len(self._named(named)) == count), f"ranks {named}"
        self.ranks = [named[rank] for rank in range(count)]
        time.sleep(0.3)
        return self.ranks

    def _named(self, into: dict) -> dict:
        for pid in children_of(self.process.pid):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name.startswith("tandem rank "):
                into[int(name.split()[-1])] = pid
        return into

    def end(self, seconds: float = PATIENCE) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err
