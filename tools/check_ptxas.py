#!/usr/bin/env python3
"""Checks that no kernel of a GPU spills registers or keeps a stack frame: either means traffic to memory that nobody asked for.

    check_ptxas.py [--build build/cuda] [--sm 90a] [-v]

Compiles every *_cuda.cu of the build for one SM and reads what ptxas says. Kernels that may have a stack frame stand in ALLOWED with the
reason. Exit status 1 if another one has.
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
# Part of a kernel's name: why it may have a stack frame.
ALLOWED: dict[str, str] = {}
ENTRY = re.compile(r"Compiling entry function '(\w+)'")
USAGE = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def compile_one(entry: dict, sm: str) -> list[tuple[str, str, int, int, int]]:
    """(file, kernel, stack bytes, spilled bytes, registers) of every kernel of a file."""
    words = shlex.split(entry["command"])
    words = words[words.index(next(word for word in words if word.endswith("nvcc"))) :]
    kept, skip = [], False
    for word in words:
        if skip or word in ("-c", "-MD") or "generate-code" in word or "gencode" in word:
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
    parser.add_argument("--sm", default="90a")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every kernel")
    args = parser.parse_args()
    entries = {
        e["file"]: e
        for e in json.loads((args.build / "compile_commands.json").read_text())
        if e["file"].endswith("_cuda.cu") and (not args.words or any(w in Path(e["file"]).name for w in args.words))
    }
    kernels, bad = 0, 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for rows in pool.map(lambda entry: compile_one(entry, args.sm), entries.values()):
            for file, kernel, stack, spilled, registers in rows:
                kernels += 1
                reason = next((why for part, why in ALLOWED.items() if part in kernel), None)
                wrong = (stack > 0 or spilled > 0) and reason is None
                bad += wrong
                if wrong or args.verbose:
                    print(f"{'BAD ' if wrong else ''}{file} {kernel}: {registers} registers, {stack} bytes of stack, {spilled} spilled")
    print(f"check_ptxas: {kernels} kernels of {len(entries)} files for sm_{args.sm}, {bad} with a stack frame or spills")
    return 1 if bad or kernels == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
