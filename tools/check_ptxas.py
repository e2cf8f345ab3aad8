#!/usr/bin/env python3
"""Checks that no kernel of a GPU spills registers or keeps a stack frame: either means traffic to memory that nobody asked for.

    check_ptxas.py [--build build/cuda] [--sm 90a] [-v] [WORD…]

Compiles every *_cuda.cu of the build, or those whose names have one of the words, for all that it has machine code for, or for one kind of
GPU, and reads what ptxas says. A build with the compiler that the project is tried with stops at such kernels by itself; this says which
they are, and with -v how many registers each kernel has. Exit status 1 if one has a stack frame.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"generate-code=\S*?code=\[?([^\]\s\"]*)")
ENTRY = re.compile(r"Compiling entry function '(\w+)'")
USAGE = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def built_for(entry: dict) -> list[str]:
    """90a and the like, of which the build makes machine code."""
    return re.findall(r"sm_(\w+)", " ".join(CODE.findall(entry["command"])))


def compile_one(entry: dict, sm: str) -> list[tuple[str, str, int, int, int]]:
    """(file, kernel, stack bytes, spilled bytes, registers) of every kernel of a file."""
    words = shlex.split(entry["command"])
    words = words[words.index(next(word for word in words if word.endswith("nvcc"))) :]
    kept, skip = [], False
    for word in words:
        if skip or word in ("-c", "-MD") or "generate-code" in word or word.startswith("-Xptxas="):
            skip = False
        elif word in ("-o", "-MT", "-MF", "-x"):
            skip = True
        else:
            kept.append(word)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*kept, f"--generate-code=arch=compute_{sm},code=sm_{sm}", "-cubin", "-Xptxas", "-v", "-o", f"{folder}/a.cubin"],
            capture_output=True,
            text=True,
            cwd=entry["directory"],
        )
    if done.returncode != 0:
        raise RuntimeError(f"{entry['file']}: {done.stderr[-2000:]}")
    found, kernel, stack, spilled = [], "", 0, 0
    for line in done.stderr.splitlines():
        if match := ENTRY.search(line):
            kernel = match.group(1)
        elif match := USAGE.search(line):
            stack, spilled = int(match.group(1)), int(match.group(2)) + int(match.group(3))
        elif (match := REGISTERS.search(line)) and kernel:
            found.append((Path(entry["file"]).name, kernel, stack, spilled, int(match.group(1))))
            kernel = ""
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/cuda")
    parser.add_argument("words", nargs="*", help="only files whose name has one of these words")
    parser.add_argument("--sm", help="like 90a; otherwise all of the build")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every kernel")
    args = parser.parse_args()
    entries = {
        e["file"]: e
        for e in json.loads((args.build / "compile_commands.json").read_text())
        if e["file"].endswith("_cuda.cu") and (not args.words or any(w in Path(e["file"]).name for w in args.words))
    }
    bad = total = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for sm in [args.sm] if args.sm else built_for(next(iter(entries.values()))):
            rows = [row for found in pool.map(compile_one, entries.values(), [sm] * len(entries)) for row in found]
            for file, kernel, stack, spilled, registers in rows:
                if stack or spilled or args.verbose:
                    mark = "BAD " if stack or spilled else ""
                    print(f"{mark}{file} {kernel}: {registers} registers, {stack} bytes of stack, {spilled} spilled")
            wrong = sum(row[2] > 0 or row[3] > 0 for row in rows)
            print(f"check_ptxas: {len(rows)} kernels of {len(entries)} files for sm_{sm}, {wrong} with a stack frame or spills")
            bad, total = bad + wrong, total + len(rows)
    return 1 if bad or total == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
