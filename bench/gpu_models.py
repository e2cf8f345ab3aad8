#!/usr/bin/env python3
"""Whole models on a GPU, through the Python package: engines of the PyTorch modules in peers/gpu_models_torch.py, on their weights and
inputs.

gpu_models.py --list   the names of the rows
gpu_models.py          reads names from stdin, a line each; answers each with a line of JSON. The first answer compares the result with
                       PyTorch's in f32.
"""

import contextlib
import copy
import json
import sys
import tempfile
from pathlib import Path

NAMES = [f"{model} f16 batch {batch}" for model in ("BERT-large 384", "ResNet-50 224") for batch in (1, 32)]

if __name__ == "__main__" and "--list" in sys.argv:
    print("\n".join(NAMES))
    sys.exit()

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import tandem  # noqa: E402
import torch  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
import gpu_models_torch as peer  # noqa: E402


class Nodes:
    """An ONNX graph that grows; every method gives the name of a value."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.weights = {name: value.detach().cpu().numpy() for name, value in module.named_parameters()}
        self.nodes, self.tensors = [], []

    def __call__(self, op: str, *inputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def constant(self, value: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), f"c{len(self.tensors)}"))
        return self.tensors[-1].name

    def linear(self, name: str, x: str, rows: slice = slice(None)) -> str:
        weight, bias = self.weights[f"{name}.weight"][rows], self.weights[f"{name}.bias"][rows]
        return self("Add", self("MatMul", x, self.constant(weight.T)), self.constant(bias))

    def norm(self, name: str, x: str) -> str:
        return self(
            "LayerNormalization",
            x,
            self.constant(self.weights[f"{name}.weight"]),
            self.constant(self.weights[f"{name}.bias"]),
            axis=-1,
            epsilon=1e-12,
        )


def save_bert(module: torch.nn.Module, given: torch.Tensor, path: Path) -> None:
    g = Nodes(module)
    batch, tokens = given.shape
    split, join = g.constant(np.array([0, 0, peer.HEADS, peer.WIDTH // peer.HEADS])), g.constant(np.array([0, 0, peer.WIDTH]))
    places = g.weights["places.weight"][:tokens].astype(np.float32) + g.weights["kinds.weight"][0]
    x = g.norm("norm", g("Add", g("Gather", g.constant(g.weights["words.weight"]), "ids"), g.constant(places.astype(np.float16))))
    for i in range(peer.LAYERS):
        name = f"layers.{i}"
        heads = []
        for part in range(3):
            rows = slice(part * peer.WIDTH, (part + 1) * peer.WIDTH)
            heads.append(g("Transpose", g("Reshape", g.linear(f"{name}.qkv", x, rows), split), perm=[0, 2, 1, 3]))
        mixed = g("Reshape", g("Transpose", g("Attention", *heads), perm=[0, 2, 1, 3]), join)
        x = g.norm(f"{name}.norm1", g("Add", x, g.linear(f"{name}.out", mixed)))
        x = g.norm(f"{name}.norm2", g("Add", x, g.linear(f"{name}.down", g("Gelu", g.linear(f"{name}.up", x)))))
    y = g("Identity", g.linear("head", x))
    g.nodes[-1].output[0] = "y"
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [batch, tokens])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [batch, tokens, 2])
    assert y
    graph = helper.make_graph(g.nodes, "bert", [ids], [out], g.tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)


def save_by_torch(module: torch.nn.Module, given: torch.Tensor, path: Path) -> None:
    torch.onnx.export(module, (given,), str(path), input_names=["x"], output_names=["y"], dynamo=False, opset_version=17)


class Row:
    def __init__(self, name: str) -> None:
        module, self.given = peer.make(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            (save_bert if peer.parts_of(name)[0] == "BERT-large" else save_by_torch)(module, self.given, path)
            engine = tandem.build(path, device="cuda", timed=True, progress=False)
        self.notices = engine.notices
        self.kernels = sorted({step["kernel"] for step in engine.describe()["steps"]})
        self.context = tandem.Context(engine)
        self.inputs = {engine.inputs[0].name: self.given}
        made = self.context(self.inputs)
        self.outputs = {name: torch.empty_like(value) for name, value in made.items()}
        self.error = self.compare(module, next(iter(made.values())))

    def compare(self, module: torch.nn.Module, got: torch.Tensor) -> float:
        exact = copy.deepcopy(module).float()
        wanted = exact(self.given if self.given.dtype == torch.int64 else self.given.float())
        error = float((got.float() - wanted).abs().max() / wanted.abs().max())
        return error if error == error else 1e30

    def measure(self, name: str) -> dict:
        us = peer.microseconds(lambda: self.context.run(self.inputs, self.outputs))
        self.context.synchronize()
        host = [notice for notice in self.notices if "host" in notice]
        return {
            "name": name,
            "us": us,
            "error": self.error,
            "kernel": ", ".join(self.kernels)[:200],
            **({"notice": host[0][:200]} if host else {}),
        }


def main() -> None:
    rows: dict[str, Row] = {}
    with torch.inference_mode():
        for line in sys.stdin:
            name = line.strip()
            try:
                if name not in rows:
                    rows.clear()
                    torch.cuda.empty_cache()
                    with contextlib.redirect_stdout(sys.stderr):
                        rows[name] = Row(name)
                answer = rows[name].measure(name)
            except tandem.Error as error:
                answer = {"name": name, "refused" if error.code == "unsupported" else "failed": str(error)[:300]}
            except Exception as error:  # told to the caller, who goes on with the next row
                answer = {"name": name, "failed": f"{type(error).__name__}: {error}"[:300]}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
