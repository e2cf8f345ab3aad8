#!/usr/bin/env python3
"""Many cycles of build, load, run and close of a small model: resident memory, descriptors and threads must stay flat.

    PYTHONPATH=build/cpu/python .venv/bin/python bench/python_leaks.py [--cycles 10000] [--isolate threads|processes] [--ranks N]
    [--seconds S]

Prints a line per tenth; exit status 1 if memory grew by more than 5 MB after the first tenth, or a descriptor or thread is left.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

MODEL = Path(__file__).resolve().parents[1] / "tests" / "models" / "mlp_dynamo.onnx"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_things() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def cycle(isolate: str, ranks: int) -> None:
    import tandem

    engine = tandem.build(MODEL, mesh={"tp": ranks} if ranks > 1 else None)
    inputs = engine.random_inputs()
    with tandem.load(engine, isolate=isolate) as model:
        outputs = model(inputs)
        assert all(np.isfinite(array).all() for array in outputs.values())
        try:
            model({name: array.astype(np.float64) for name, array in inputs.items()})
        except tandem.Error:
            pass
        else:
            raise AssertionError("a wrong dtype was taken")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10000)
    parser.add_argument("--isolate", choices=["threads", "processes"], default="threads")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many, with the cycles done by then")
    args = parser.parse_args()
    for _ in range(20):  # what is made once
        cycle(args.isolate, args.ranks)
    before, begin, settled = open_things(), time.monotonic(), 0
    tenth = max(1, args.cycles // 10)
    done = 0
    while done < args.cycles and time.monotonic() - begin < args.seconds:
        cycle(args.isolate, args.ranks)
        done += 1
        if done % tenth == 0 or done == args.cycles:
            settled = settled or resident_bytes()
            print(f"{done} cycles: {resident_bytes() / 1e6:.1f} MB, descriptors and threads {open_things()}", flush=True)
    grown = resident_bytes() - (settled or resident_bytes())
    after = open_things()
    print(
        f"{args.isolate}, {args.ranks} ranks: {done} cycles in {time.monotonic() - begin:.0f} s, memory {grown / 1e6:+.1f} MB, "
        f"descriptors and threads {before} -> {after}"
    )
    return 1 if grown > 5e6 or after > before else 0


if __name__ == "__main__":
    sys.exit(main())
