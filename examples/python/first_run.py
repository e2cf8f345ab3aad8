"""From an ONNX file to outputs: python first_run.py [MODEL.onnx]"""

import sys

import tandem

model_file = sys.argv[1] if len(sys.argv) > 1 else "tests/models/mlp_dynamo.onnx"
engine = tandem.build(model_file)
for port in engine.inputs + engine.outputs:
    print(f"{port.name}: {port.dtype}{list(port.shape)}")

inputs = engine.random_inputs()  # numpy arrays by name; torch tensors and anything with DLPack do as well
with tandem.load(engine) as model:
    outputs = model(inputs)
for name, array in outputs.items():
    print(name, array.shape, "mean", round(float(array.mean()), 4))
