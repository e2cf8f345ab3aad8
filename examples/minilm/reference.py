"""all-MiniLM-L6-v2 straight from its checkpoint in float64 NumPy: says whether the ONNX file is the model it claims to be."""

import json
import math
from typing import Any

import numpy as np
from make_onnx import model_folder
from safetensors.numpy import load_file

erf = np.vectorize(math.erf, otypes=[np.float64])


_Array = np.ndarray[Any, Any]


def sentence_embeddings(input_ids: _Array, attention_mask: _Array) -> _Array:
    folder = model_folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, _Array] = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    batch, sequence = input_ids.shape
    heads = config["num_attention_heads"]

    def norm(x: _Array, name: str) -> _Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_eps"])
        scaled: _Array = x * weights[name + ".weight"] + weights[name + ".bias"]
        return scaled

    def linear(x: _Array, name: str) -> _Array:
        mixed: _Array = x @ weights[name + ".weight"].T + weights[name + ".bias"]
        return mixed

    def by_head(x: _Array) -> _Array:
        return x.reshape(batch, sequence, heads, -1).transpose(0, 2, 1, 3)

    x = weights["embeddings.word_embeddings.weight"][input_ids]
    x = x + weights["embeddings.position_embeddings.weight"][:sequence] + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    hidden = np.where(attention_mask[:, None, None, :] == 0, -np.inf, 0.0)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        q, k, v = (by_head(linear(x, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value"))
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]) + hidden
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        context = (scores / scores.sum(-1, keepdims=True)) @ v
        context = context.transpose(0, 2, 1, 3).reshape(batch, sequence, -1)
        x = norm(linear(context, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1.0 + erf(inner / math.sqrt(2.0)))
        x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")

    mask = attention_mask[:, :, None].astype(np.float64)
    mean = (x * mask).sum(1) / mask.sum(1)
    normalised: _Array = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    return normalised
