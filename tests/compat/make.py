#!/usr/bin/env python3
"""Writes the engine file of today's format, and inputs with the outputs that numpy gives: formatN.tandem, formatN.safetensors.

    PYTHONPATH=build/cpu/python .venv/bin/python tests/compat/make.py [FOLDER]

One small program for two ranks: split and shared weights, a frozen constant, an exchange, a dynamic extent, several element types.
"""

import sys
from pathlib import Path

import numpy as np
import tandem
from safetensors import safe_open
from safetensors.numpy import save_file


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"table": (10, 8), "up": (8, 16), "bias": (16,), "down": (16, 8), "scale": (8,), "shift": (8,)}
    return {name: random.standard_normal(shape).astype(np.float16 if name == "table" else np.float32) for name, shape in shapes.items()}


def network(given: dict[str, np.ndarray]) -> tandem.Network:
    net = tandem.Network()
    w = {name: net.weight(name, array) for name, array in given.items()}
    ids, mask = net.input("ids", "i64", ["rows"]), net.input("mask", "bool", ["rows", 1])
    x = net.cast(net.gather(w["table"], ids), "f32")
    h = net.relu(x @ w["up"] + w["bias"], name="mlp/relu")
    y = net.layer_norm(x + h @ w["down"], w["scale"], w["shift"], epsilon=1e-5, name="norm")
    net.output("y", net.where(mask, y, net.constant(np.arange(8, dtype=np.float32))))
    net.output("largest", net.arg_max(y, axis=1))
    return net


def oracle(w: dict[str, np.ndarray], ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    w = {name: array.astype(np.float64) for name, array in w.items()}
    x = w["table"][ids]
    y = x + np.maximum(x @ w["up"] + w["bias"], 0) @ w["down"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5) * w["scale"] + w["shift"]
    return {"y": np.where(mask, y, np.arange(8)).astype(np.float32), "largest": y.argmax(1)[:, None]}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    given = weights()
    file = folder / "new.tandem"
    network(given).build(mesh={"tp": 2}, timed=False, threads=1).save(file)
    with safe_open(file, "np") as written:
        version = written.metadata()["tandem.format"]
    file = file.rename(folder / f"format{version}.tandem")
    random, cases = np.random.default_rng(1), {}
    for case, rows in enumerate((1, 5)):
        inputs = {"ids": random.integers(0, 10, rows), "mask": random.integers(0, 2, (rows, 1)).astype(bool)}
        cases |= {f"case{case}.input.{name}": array for name, array in inputs.items()}
        cases |= {f"case{case}.output.{name}": array for name, array in oracle(given, **inputs).items()}
    save_file(cases, file.with_suffix(".safetensors"))
    print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
