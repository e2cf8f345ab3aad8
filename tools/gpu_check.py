#!/usr/bin/env python3
"""Runs what tools/gpu_pack.sh packed, on a machine with GPUs: what is there, tests of every kernel, recorded models, benchmarks.

    gpu_check.py [STAGE…] [--budget SECONDS] [--out DIR] [--resume FILE] [--pack build/gpu]

Stages run in their order, each with a limit of its own; one line of JSON per row goes to DIR/rows.jsonl as the row ends, and a table of at
most 100 lines is printed last. --resume FILE leaves out the rows that the same programs have passed before, as an earlier rows.jsonl says.
Exit status 1 if a row failed.
"""

import argparse
import sys
from pathlib import Path

from gpu_checks import tests, timings
from gpu_checks.rows import ROOT, Check, Row

STAGES = {
    "probe": tests.probe,
    "kernels": tests.kernels,
    "contexts": tests.contexts,
    "groups": tests.groups,
    "models": tests.models,
    "python": tests.python,
    "bench": timings.bench,
    "engines": timings.engines,
    "ranks": timings.ranks,
    "sanitizer": tests.sanitizer,
}


def table(rows: list[Row], limit: int = 100) -> str:
    lines = []
    for stage in STAGES:
        of = [row for row in rows if row.stage == stage]
        if of:
            lines.append(f"{stage}: " + ", ".join(f"{sum(r.status == s for r in of)} {s}" for s in ("passed", "failed", "skipped")))
    total: dict[str, int] = {}
    for row in rows:
        if row.stage == "kernels":
            for kernel, count in row.values.items():
                total[kernel] = total.get(kernel, 0) + count
    lines += [f"  {count:6} rows on {kernel}" for kernel, count in sorted(total.items())]
    for row in rows:
        if row.stage in ("probe", "bench", "engines", "ranks") or row.status == "failed":
            lines.append(f"{row.status} {row.stage} {row.name} {row.values or ''} {row.text[:400]}")
    return "\n".join("\n".join(lines).splitlines()[:limit])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE", help=", ".join(STAGES) + " (default: all)")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu_check")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--pack", type=Path, default=ROOT / "build/gpu")
    args = parser.parse_args()
    check = Check(args)
    for stage in args.stages or STAGES:
        for row in STAGES[stage](check):
            check.add(row)
            if check.left() <= 0:
                break
        if check.left() <= 0:
            check.add(Row(stage, "budget", "failed", 0, "the time was used up here; --resume goes on"))
            break
    print(table(check.rows))
    return 1 if any(row.status == "failed" for row in check.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
