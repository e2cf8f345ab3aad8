"""A transformer block built in Python and sharded over two ranks: heads and hidden units are split, two all-reduces repair the sums."""

import numpy as np

import tandem

HEADS, SIZE, WIDTH, HIDDEN = 4, 8, 32, 128
random = np.random.default_rng(0)
shapes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
weights = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
ones = np.ones(WIDTH, np.float32)

net = tandem.Network()
q, k, v, o, up, down = (net.weight(name, array) for name, array in weights.items())
x = net.input("x", "f32", ["B", "S", WIDTH])
h = net.rms_norm(x, ones)
heads = [net.transpose(net.reshape(h @ w, ["B", "S", HEADS, SIZE]), [0, 2, 1, 3]) for w in (q, k, v)]
a = net.attention(*heads, causal="upper_left")
y = x + net.reshape(net.transpose(a, [0, 2, 1, 3]), ["B", "S", WIDTH]) @ o
net.output("y", y + net.silu(net.rms_norm(y, ones) @ up) @ down)

inputs = {"x": random.standard_normal((2, 6, WIDTH), dtype=np.float32)}
with tandem.load(net) as one, tandem.load(net.build(mesh={"tp": 2})) as two:
    outputs = two(inputs)
    print(f"on two ranks {[c.operation for c in two.engine.collectives]}")
    print(f"largest difference from one rank {np.abs(outputs['y'] - one(inputs)['y']).max():.1e}")
