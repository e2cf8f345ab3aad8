#!/usr/bin/env python3
"""Runs what tools/gpu_pack.sh packed, on a machine with GPUs: what is there, tests of every kernel, recorded models, a soak, benchmarks.

    gpu_check.py [STAGE…] [--budget SECONDS] [--out DIR] [--resume [FILE]] [--jobs N] [--pack build/gpu]

Stages run in their order, each with a limit of its own; one line of JSON per row goes to DIR/rows.jsonl as the row ends, and a table of at
most 100 lines is printed last. --resume leaves out the rows that the same programs have passed before, as DIR/rows.jsonl or FILE says.
Exit status 1 if a row failed.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from gpu_checks import sanitizer, supervision, tests, timings
from gpu_checks.rows import PACK, ROOT, Check, Row

# What each runs, and the seconds that it may take of the budget.
STAGES = {
    "probe": (tests.probe, 200),
    "kernels": (tests.kernels, 400),
    "contexts": (tests.contexts, 400),
    "groups": (tests.groups, 520),
    "rank_rows": (tests.rank_rows, 520),
    "models": (tests.models, 500),
    "python": (tests.python, 400),
    "soak": (tests.soak, 200),
    "bench": (timings.bench, 500),
    "engines": (timings.engines, 900),
    "ranks": (timings.ranks, 600),
    "supervision": (supervision.supervision, 160),
    "sanitizer": (sanitizer.sanitizer, 900),
}


def table(rows: list[Row], limit: int = 100) -> str:
    lines = []
    rows = [row for row in rows if not row.is_end()]
    for stage in STAGES:
        of = [row for row in rows if row.stage == stage]
        if of:
            lines.append(f"{stage}: " + ", ".join(f"{sum(r.status == s for r in of)} {s}" for s in ("passed", "failed", "skipped")))
    total: dict[str, int] = {}
    for row in rows:
        if row.stage in ("kernels", "groups", "rank_rows"):
            for kernel, count in row.values.items():
                total[kernel] = total.get(kernel, 0) + count
    lines += [f"  {count:6} rows on {kernel}" for kernel, count in sorted(total.items())]
    for row in rows:
        if row.stage in ("probe", "bench", "engines", "ranks", "supervision") or row.status == "failed":
            lines.append(f"{row.status} {row.stage} {row.name} {row.values or ''} {row.text[:400]}")
    return "\n".join("\n".join(lines).splitlines()[:limit])


def run_stage(check: Check, stage: str) -> None:
    work, seconds = STAGES[stage]
    check.begin(seconds)
    with contextlib.closing(work(check)) as rows:  # ends what the stage has started
        for row in rows:
            check.add(row)
            if check.left() <= 0:
                told = "the time was used up here" if check.is_over() else f"the stage's {seconds} s were used up here"
                check.add(Row(stage, "budget" if check.is_over() else "limit", "failed", 0, told + "; --resume goes on"))
                return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE", help=", ".join(STAGES) + " (default: all)")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--out", type=Path, default=(ROOT if PACK == ROOT else ROOT / "build") / "gpu_check")
    parser.add_argument("--resume", type=Path, nargs="?", const=Path(), metavar="FILE", help="default: rows.jsonl of --out")
    parser.add_argument("--jobs", type=int, default=4, help="tests of several GPUs at a time, but for those that stay alone (4)")
    parser.add_argument("--pack", type=Path, default=PACK)
    args = parser.parse_args()
    if args.resume == Path():
        args.resume = args.out / "rows.jsonl"
    check = Check(args)
    for stage in args.stages or STAGES:
        run_stage(check, stage)
        if check.is_over():
            break
    print(table(check.rows))
    return 1 if any(row.status == "failed" for row in check.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
