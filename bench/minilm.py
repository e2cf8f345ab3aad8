#!/usr/bin/env python3
"""all-MiniLM-L6-v2: Tandem on CPU ranks against ONNX Runtime, both in one run of this script, each alone in its own process.

    minilm.py [--rounds 5] [--seconds 2] [--rows WORD…] [--out build/bench/minilm.json]

A round runs both sides of a row, one after the other and in turns first. A spin probe goes before and after each; where a core lost
more than 3 % the run is thrown away and tried again. The figure of a side is the median over rounds of its median step; the ratio is
the peer's figure divided by ours.
A step is a whole call, with scatter and gather. Token ids are random; the outputs of the model timed and of the peer are compared. Exit
1: outputs differ, or the machine gave too few clean runs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spin_probe
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 3.0  # percent of a core lost around a run
TOLERANCE = 1e-4  # of the largest magnitude
FOREIGN = ("OPENBLAS_", "OMP_", "MKL_", "GOMP_", "KMP_", "NVPL_")  # left in place they slow some libraries down


@dataclass
class Row:
    name: str
    batch: int
    sequence: int
    where: list[str]  # how Tandem spreads the model
    peer_threads: int
    bar: float
    runs: int  # timed steps of one of our runs


ROWS = [
    Row("8x128, 1 rank", 8, 128, [], 1, 1.15, 20),
    Row("8x128, tp=2", 8, 128, ["--mesh", "tp=2"], 2, 0.95, 30),
    Row("8x128, dp=2", 8, 128, ["--mesh", "dp=2"], 2, 1.1, 30),
    Row("1x16, 1 rank", 1, 16, [], 1, 1.1, 400),
    Row("1x16, tp=2", 1, 16, ["--mesh", "tp=2"], 2, 0.9, 600),
]


class Contaminated(Exception):
    pass


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


def once(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())
    if done.returncode != 0:
        sys.exit(f"bench: exit status {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def timed(command: list[str]) -> dict:
    """One process between two probes; its JSON report."""
    before = max(spin_probe.measure(0.3))
    if before > LIMIT:
        raise Contaminated
    report = json.loads(once(command))
    after = max(spin_probe.measure(0.3))
    if after > LIMIT:
        raise Contaminated
    return {**report, "lost_percent": [before, after]}


def clean(command: list[str], give_up: float) -> dict:
    rejected = 0
    while True:
        try:
            return {**timed(command), "rejected": rejected}
        except Contaminated:
            rejected += 1
            if time.monotonic() > give_up:
                sys.exit("bench: no clean run in the time allowed: this machine is losing CPU time")
            time.sleep(1)


def worst_difference(ours: Path, peers: Path) -> float:
    """Largest error relative to the largest magnitude, over all outputs; NaN counts as infinite."""
    a, b = load_file(ours), load_file(peers)
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in b):
        return float("inf")
    worst = max(float(np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()) for name in b)
    return worst if worst == worst else float("inf")


def measure_row(row: Row, args: argparse.Namespace) -> dict:
    inputs, ours_out, peer_out = (args.work / name for name in ("inputs.safetensors", "ours.safetensors", "peer.safetensors"))
    ids = np.random.default_rng(7).integers(1000, 30000, (row.batch, row.sequence), np.int64)
    save_file({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}, inputs)
    model = str(args.work / "minilm.onnx")
    tandem, files = str(args.tandem), [*row.where, "--inputs", str(inputs), "--threads", "1"]
    once([tandem, "run", model, *files, "--outputs", str(ours_out)])
    peer = [sys.executable, str(ROOT / "bench/minilm_onnxruntime.py"), model, "--inputs", str(inputs), "--outputs", str(peer_out)]
    sides = {
        "ours": [tandem, "bench", model, *files, "--runs", str(row.runs), "--json"],
        "peer": [*peer, "--threads", str(row.peer_threads), "--seconds", str(args.seconds)],
    }
    runs: dict[str, list[dict]] = {"ours": [], "peer": []}
    difference = 0.0
    for number in range(args.rounds):
        for side in sorted(sides, reverse=number % 2 == 1):
            runs[side].append(clean(sides[side], time.monotonic() + args.patience))
        difference = max(difference, worst_difference(ours_out, peer_out))
    medians = {side: statistics.median(run["call_median_ms"] for run in runs[side]) for side in runs}
    ratio = medians["peer"] / medians["ours"]
    return {
        "row": row.name,
        "ours_ms": medians["ours"],
        "peer_ms": medians["peer"],
        "peer_threads": row.peer_threads,
        "ratio": ratio,
        "bar": row.bar,
        "met": ratio >= row.bar,
        "difference": difference,
        "commands": {side: " ".join(command) for side, command in sides.items()},
        "runs": runs,
    }


def machine() -> dict:
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), "python": platform.python_version()}


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", type=Path, default=ROOT / "build/cpu/bin/tandem")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--out", type=Path, help="the figures as JSON (default: minilm.json in the work folder)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds of a peer's run")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for a clean run")
    parser.add_argument("--rows", nargs="*", default=[], help="only rows whose name holds one of these words")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT / "examples/minilm"))
    from make_onnx import make_model

    (args.work / "minilm.onnx").write_bytes(make_model().SerializeToString())
    results = []
    print(f"{'row':16} {'Tandem ms':>10} {'ORT ms':>8} {'threads':>8} {'ratio':>6} {'bar':>5}  {'difference':>10}  rejected")
    for row in ROWS:
        if args.rows and not any(word in row.name for word in args.rows):
            continue
        r = measure_row(row, args)
        results.append(r)
        rejected = sum(run["rejected"] for side in r["runs"].values() for run in side)
        verdict = "met" if r["met"] else "missed"
        print(
            f"{r['row']:16} {r['ours_ms']:10.2f} {r['peer_ms']:8.2f} {r['peer_threads']:8} {r['ratio']:6.2f} {r['bar']:5.2f}"
            f"  {r['difference']:10.1e}  {rejected:8}  {verdict}",
            flush=True,
        )
    out = args.out or args.work / "minilm.json"
    report = {"commit": commit(), "machine": machine(), "rounds": args.rounds, "probe_limit_percent": LIMIT, "results": results}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out}")
    wrong = [r["row"] for r in results if not r["difference"] <= TOLERANCE]
    if wrong:
        print("FAILED: outputs differ: " + "; ".join(wrong))
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.exit(main())
