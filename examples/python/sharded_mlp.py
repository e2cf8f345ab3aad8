"""One model on two ranks: the same numbers, half the weights on each."""

import numpy as np

import tandem

model_file = "tests/models/mlp_dynamo.onnx"
whole = tandem.build(model_file)
sharded = tandem.build(model_file, mesh={"tp": 2})
sharded.save("mlp.tandem")

for collective in sharded.collectives:
    print(f"each run: {collective.operation} over {collective.axis}, {collective.bytes} bytes, because {collective.note}")
for name, engine in (("one rank", whole), ("two ranks", sharded)):
    print(f"{name}: {engine.describe()['ranks'][0]['weight_bytes']} bytes of weights on each")

inputs = whole.random_inputs()
with tandem.load(whole) as one, tandem.load("mlp.tandem", ranks=2) as two:
    for key, value in one(inputs).items():
        difference = np.abs(value - two(inputs)[key]).max()
        print(f"{key}: largest difference {difference:.1e}")
        assert difference < 1e-5
