"""Attention whose sequence is split over two ranks, each of which holds half of q, k and v: TensorRT's multi-device attention."""

import numpy as np

import tandem

shape = (1, 8, 128, 64)
net = tandem.Network(mesh={"cp": 2})  # what follows is the program of one rank
q, k, v = (net.input(name, "f32", shape, placement="2:cp") for name in "qkv")
net.output("y", net.attention(q, k, v, axis="cp", causal="upper_left"), placement="2:cp")

random = np.random.default_rng(0)
inputs = {name: random.standard_normal(shape, dtype=np.float32) for name in "qkv"}
with tandem.load(net) as model:
    y = model(inputs)["y"]  # scattered, run on both ranks, gathered

scores = inputs["q"].astype(np.float64) @ inputs["k"].swapaxes(2, 3) / np.sqrt(64)
p = np.exp(np.where(np.tri(128, dtype=bool), scores, -np.inf))
error = np.abs(y - p / p.sum(-1, keepdims=True) @ inputs["v"]).max()
print(f"each rank holds {q.shape}, largest difference from numpy {error:.1e}")
assert error < 1e-5
