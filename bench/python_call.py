#!/usr/bin/env python3
"""Time of one call from Python: a one-node model with four tiny inputs on one CPU rank, against ONNX Runtime on the same file.

    PYTHONPATH=build/cpu/python .venv/bin/python bench/python_call.py [--calls N] [--rounds N] [--json]

Also the time of `import tandem` in a fresh interpreter, and from Ctrl-C to KeyboardInterrupt while a call waits for a rank that is stopped.
Both sides take turns in one process per side, one thread each; the median over rounds counts. See docs/benchmarks.md for how far the
numbers can be trusted.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INPUTS = ("a", "b", "c", "d")


def make_model(path: Path) -> None:
    from onnx import TensorProto, helper, save

    kind = (TensorProto.FLOAT, [1, 4])
    inputs = [helper.make_tensor_value_info(name, *kind) for name in INPUTS]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])
    graph = helper.make_graph([helper.make_node("Concat", list(INPUTS), ["y"], axis=1)], "one node", inputs, [output])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def microseconds(call, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls * 1e6


def one_side(side: str, model: str, calls: int, rounds: int) -> list[float]:
    import numpy as np

    arrays = {name: np.full((1, 4), i, np.float32) for i, name in enumerate(INPUTS)}
    if side == "tandem":
        import tandem

        loaded = tandem.load(model, threads=1)
        call = lambda: loaded(arrays)  # noqa: E731
        result = call()["y"]
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        call = lambda: session.run(None, arrays)  # noqa: E731
        result = call()[0]
    assert result.tolist() == [[float(i) for i in range(4) for _ in range(4)]], result
    microseconds(call, calls)
    return [microseconds(call, calls) for _ in range(rounds)]


def import_milliseconds(module: str) -> float:
    def run(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - begin) * 1e3

    return statistics.median(run(f"import {module}") - run("pass") for _ in range(9))


WAITING = """
import os, signal, sys, time
import tandem
engine = tandem.build(sys.argv[1], mesh={"tp": 2})
model, inputs = tandem.load(engine, isolate="processes"), engine.random_inputs()
model(inputs)
for task in os.listdir("/proc/self/task"):
    for child in open(f"/proc/self/task/{task}/children").read().split():
        os.kill(int(child), signal.SIGSTOP)
print("ready", flush=True)
try:
    model(inputs)
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
"""


def interrupt_seconds() -> float:
    """The longest of five."""
    model = Path(__file__).resolve().parents[1] / "tests" / "models" / "mlp_dynamo.onnx"
    longest = 0.0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WAITING, str(model)], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        longest = max(longest, float(process.communicate(timeout=60)[0]) - begin)
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["tandem", "onnxruntime"], help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(one_side(args.side, args.model, args.calls, args.rounds)))
        return
    times: dict[str, list[float]] = {"tandem": [], "onnxruntime": []}
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "one_node.onnx")
        make_model(Path(model))
        for _ in range(3):
            for side, all_times in times.items():
                command = [
                    sys.executable,
                    __file__,
                    "--side",
                    side,
                    "--model",
                    model,
                    "--calls",
                    str(args.calls),
                    "--rounds",
                    str(args.rounds),
                ]
                all_times += json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    medians = {side: statistics.median(values) for side, values in times.items()}
    report = {
        "tandem_us": medians["tandem"],
        "onnxruntime_us": medians["onnxruntime"],
        "ratio": medians["tandem"] / medians["onnxruntime"],
        "import_tandem_ms": import_milliseconds("tandem"),
        "interrupt_s": interrupt_seconds(),
    }
    if args.json:
        print(json.dumps(report))
        return
    print(f"one call: tandem {report['tandem_us']:.2f} us, ONNX Runtime {report['onnxruntime_us']:.2f} us, ratio {report['ratio']:.2f}")
    print(f"import tandem: {report['import_tandem_ms']:.0f} ms")
    print(f"Ctrl-C to KeyboardInterrupt: {report['interrupt_s']:.2f} s, the longest of five")


if __name__ == "__main__":
    main()
