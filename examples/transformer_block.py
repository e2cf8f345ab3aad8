"""A transformer block built in Python and sharded over two ranks: heads and hidden units are split, two all-reduces repair the sums.

    python examples/transformer_block.py
"""

import numpy as np
import tandem

HEADS, SIZE, WIDTH, HIDDEN = 4, 8, 32, 128
random = np.random.default_rng(0)
shapes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
weights = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def block() -> tandem.Network:
    net = tandem.Network()
    w = {name: net.weight(name, value) for name, value in weights.items()}
    ones = np.ones(WIDTH, np.float32)

    def heads(x: tandem.Value) -> tandem.Value:
        return net.transpose(net.reshape(x, ["B", "S", HEADS, SIZE]), [0, 2, 1, 3])

    x = net.input("x", "f32", ["B", "S", WIDTH])
    h = net.rms_norm(x, ones)
    a = net.attention(heads(h @ w["q"]), heads(h @ w["k"]), heads(h @ w["v"]), causal="upper_left")
    x = x + net.reshape(net.transpose(a, [0, 2, 1, 3]), ["B", "S", WIDTH]) @ w["o"]
    net.output("y", x + net.silu(net.rms_norm(x, ones) @ w["up"]) @ w["down"])
    return net


def by_numpy(x: np.ndarray) -> np.ndarray:
    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    batch, rows, _ = x.shape
    h = norm(x.astype(np.float64))
    q, k, v = ((h @ weights[n]).reshape(batch, rows, HEADS, SIZE).transpose(0, 2, 1, 3) for n in "qkv")
    scores = np.where(np.tri(rows, dtype=bool), q @ k.transpose(0, 1, 3, 2) / np.sqrt(SIZE), -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    x = x + ((p / p.sum(-1, keepdims=True)) @ v).transpose(0, 2, 1, 3).reshape(batch, rows, WIDTH) @ weights["o"]
    u = norm(x) @ weights["up"]
    return x + (u / (1 + np.exp(-u))) @ weights["down"]


if __name__ == "__main__":
    engine = block().build(mesh={"tp": 2})
    x = random.standard_normal((2, 6, WIDTH), dtype=np.float32)
    with tandem.load(engine) as model:
        error = np.abs(model(x=x)["y"] - by_numpy(x)).max()
    print(f"{engine.ranks} ranks, {[c.operation for c in engine.collectives]}, largest difference from numpy {error:.1e}")
    assert error < 1e-4
