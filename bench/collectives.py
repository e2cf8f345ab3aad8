#!/usr/bin/env python3
"""All-reduce between two processes: Tandem beside OpenMPI, Gloo and a bare spin loop, in turns, in one run.

Every side probes for lost CPU before and after each size; rows that lost more than 3 % are dropped and the side runs again.
The figure of a side is the median of its accepted rows' medians; the slowest rank counts; outputs are checked in the timed run.
Where two cores share no cache all figures are larger, and a virtual machine may move between the two cases: compare within a round.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
SIZES = [4 << 10, 64 << 10, 4 << 20]
GOALS = {4 << 10: 2.5, 64 << 10: 10.0, 4 << 20: 700.0}
MOST_LOST = 0.03


def build_peers(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Compiles each peer whose compiler and library are there; says which are not."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = {
        "spin": ["g++", "-std=c++20", "-O3", "-march=native"],
        "openmpi": ["mpicxx", "-std=c++20", "-O2"],
        "gloo": ["g++", "-std=c++20", "-O2", "-pthread"],
    }
    built = {}
    for side, command in commands.items():
        program = folder / f"{side}_collectives"
        source = HERE / "peers" / f"{side}_collectives.cpp"
        libraries = ["-lgloo"] if side == "gloo" else []
        if shutil.which(command[0]) is None:
            print(f"{side}: left out, no {command[0]} here", file=sys.stderr)
            continue
        done = subprocess.run([*command, str(source), "-o", str(program), *libraries], capture_output=True, text=True)
        if done.returncode == 0:
            built[side] = program
        else:
            print(f"{side}: left out, it does not compile: {done.stderr.splitlines()[:1]}", file=sys.stderr)
    return built


def run_side(side: str, program: pathlib.Path, prefix: list[str]) -> list[dict]:
    """One run of a side alone; its JSON rows."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")}
    if side == "gloo":
        with tempfile.TemporaryDirectory() as store:
            ranks = [
                subprocess.Popen([*prefix, str(program), str(r), "2", store], stdout=subprocess.PIPE, text=True, env=environment)
                for r in range(2)
            ]
            texts = [p.communicate(timeout=300)[0] for p in ranks]
        return [json.loads(line) for line in texts[0].splitlines()]
    command = [*prefix, str(program)]
    if side == "openmpi":
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        command = [*prefix, "mpirun", *root, "-n", "2", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--build", type=pathlib.Path, default=ROOT / "build" / "cpu", help="CMake build folder that holds bin/bench_collectives"
    )
    parser.add_argument("--rounds", type=int, default=3, help="accepted rows wanted per side and size")
    parser.add_argument("--tries", type=int, default=10, help="runs per side at most")
    parser.add_argument("--sides", default="tandem,spin,openmpi,gloo")
    parser.add_argument("--realtime", action="store_true", help="run every side under chrt -f 1, on machines shared with other work")
    arguments = parser.parse_args()

    programs = build_peers(arguments.build / "peers") | {"tandem": arguments.build / "bin" / "bench_collectives"}
    sides = [s for s in arguments.sides.split(",") if s in programs]
    prefix = ["chrt", "-f", "1"] if arguments.realtime else []
    accepted: dict[tuple[str, int], list[dict]] = {(s, b): [] for s in sides for b in SIZES}
    wrong = False
    for _ in range(arguments.tries):
        for side in sides:
            if all(len(accepted[side, b]) >= arguments.rounds for b in SIZES):
                continue
            for row in run_side(side, programs[side], prefix):
                wrong = wrong or not row["correct"]
                clean = row["lost"] <= MOST_LOST
                print(json.dumps(row | {"accepted": clean}))
                if clean:
                    accepted[side, row["bytes"]].append(row)

    print(f"\n{'side':10}" + "".join(f"{b // 1024:>10} KiB" for b in SIZES) + "   (µs; median of accepted runs)")
    for side in sides:
        cells = []
        for b in SIZES:
            rows = accepted[side, b]
            cells.append(f"{statistics.median(r['median_us'] for r in rows):14.2f}" if rows else f"{'contaminated':>14}")
        print(f"{side:10}" + "".join(cells))
    print(f"{'goal':10}" + "".join(f"{GOALS[b]:14.2f}" for b in SIZES))
    if wrong:
        print("an output was wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
