"""NVIDIA's compute-sanitizer: memory, races and barriers over one small shape per kernel, then memory over all tests of kernels."""

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpu_checks.rows import Check, Row
from gpu_checks.tests import WORKERS, names_of

TOOLS = ("memcheck", "racecheck", "synccheck")
SMALL = "OneSmallShape."  # tests/kernels/one_small_shape_test.cpp
SAME_SHAPES = "NonFiniteRow"  # those again with other values: tests/kernels/nonfinite_rows_test.cpp


def verdict_of(status: int, text: str) -> tuple[str, str]:
    """Of one call of the sanitizer: passed, failed or skipped, and what is told of it."""
    clean = status == 0 and ("ERROR SUMMARY: 0 errors" in text or "RACECHECK SUMMARY: 0 hazards displayed" in text)
    at = re.findall(r"(?:Read|Write) access at (\w+)", text)
    if status == 124:
        return "failed", "took longer than its limit"
    if "before first instrumented API call" in text:
        return "skipped", "it uses no GPU"
    if clean:
        return ("skipped", "no kernel takes it here") if "SKIPPED" in text else ("passed", "")
    if at and all(kernel.startswith("cudnn_") for kernel in at):
        return "skipped", "hazards are told of in cuDNN's own kernels only"
    return "failed", text.strip()[:1500]


def sanitizer(check: Check) -> Iterator[Row]:
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        yield Row("sanitizer", "all", "skipped", 0, "there is no compute-sanitizer")
        return

    def run(job: tuple[str, str]) -> Row:
        kind, name = job
        if ("sanitizer", f"{kind} {name}") in check.known:
            return check.known["sanitizer", f"{kind} {name}"]
        command = [
            tool,
            "--tool",
            kind,
            "--error-exitcode",
            "9",
            check.program("kernels_test"),
            "--gtest_filter=" + name,
            "--gtest_brief=1",
        ]
        status, text, seconds = check.call(command, 90)
        verdict, told = verdict_of(status, text)
        return Row("sanitizer", f"{kind} {name}", verdict, seconds, told)

    names = names_of(check, check.program("kernels_test"))
    small = [name for name in names if name.startswith(SMALL)]
    if not small:
        yield Row("sanitizer", "list", "failed", 0, "there are no tests of one small shape per kernel")
    jobs = [(kind, name) for kind in TOOLS for name in small] + [
        ("memcheck", name) for name in names if not name.startswith((SMALL, SAME_SHAPES))
    ]
    with ThreadPoolExecutor(max(WORKERS, (os.cpu_count() or 1) // 2)) as pool:
        yield from pool.map(run, jobs)
