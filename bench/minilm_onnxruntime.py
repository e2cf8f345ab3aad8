#!/usr/bin/env python3
"""The peer of minilm.py: ONNX Runtime alone in its process, timed and its outputs kept.

minilm_onnxruntime.py MODEL --inputs FILE --outputs FILE --threads N --seconds S
"""

import argparse
import json
import time

import numpy as np
import onnxruntime
from safetensors.numpy import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--outputs", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    inputs = load_file(args.inputs)
    names = [output.name for output in session.get_outputs()]

    until = time.perf_counter() + args.seconds / 4
    outputs = session.run(names, inputs)
    while time.perf_counter() < until:
        session.run(names, inputs)
    times = []
    until = time.perf_counter() + args.seconds
    while time.perf_counter() < until or len(times) < 10:
        begin = time.perf_counter()
        outputs = session.run(names, inputs)
        times.append(1e3 * (time.perf_counter() - begin))
    save_file(dict(zip(names, map(np.ascontiguousarray, outputs), strict=True)), args.outputs)
    report = {"min_ms": min(times), "call_median_ms": float(np.median(times)), "p99_ms": float(np.percentile(times, 99))}
    print(json.dumps({**report, "runs": len(times), "version": onnxruntime.__version__}))


if __name__ == "__main__":
    main()
