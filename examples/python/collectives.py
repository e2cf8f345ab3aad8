"""Collectives in a network: every rank has its own input, and gets its own outputs."""

import numpy as np

import tandem

RANKS = 4
net = tandem.Network(mesh={"rank": RANKS})
x = net.input("x", "f32", [RANKS, 3])
net.output("sum", net.all_reduce(x))
net.output("all", net.all_gather(x))
net.output("mine", net.reduce_scatter(x, reduce="max"))
net.output("turned", net.all_to_all(x))
net.output("pairs", net.all_reduce(x, groups=[[0, 1], [2, 3]]))

xs = [np.random.default_rng(rank).standard_normal((RANKS, 3), dtype=np.float32) for rank in range(RANKS)]
with tandem.load(net) as model:
    out = model(x=xs)
    print(f"{RANKS} ranks: {[c.operation for c in model.engine.collectives]}")

for rank in range(RANKS):
    np.testing.assert_allclose(out["sum"][rank], sum(xs), rtol=1e-5)
    np.testing.assert_array_equal(out["all"][rank], np.concatenate(xs))
    np.testing.assert_array_equal(out["mine"][rank], np.max(xs, 0)[rank : rank + 1])
    np.testing.assert_array_equal(out["turned"][rank], [x[rank] for x in xs])
    np.testing.assert_allclose(out["pairs"][rank], xs[rank] + xs[rank ^ 1], rtol=1e-5)
