#!/usr/bin/env python3
"""Runs what tools/gpu_pack.sh packed, on a machine with GPUs: what is there, tests of every kernel, recorded models, a soak, benchmarks.

    gpu_check.py [STAGE…] [--budget SECONDS] [--out DIR] [--resume [FILE]] [--jobs N] [--pack build/gpu]

Stages run in their order, each with a limit of its own; one line of JSON per row goes to DIR/rows.jsonl as the row ends, and a table of at
most 100 lines is printed last, failures first. --resume leaves out the rows that the same programs have passed before, as DIR/rows.jsonl or
FILE says; `probe` is run in each call that takes times. Two calls may run side by side, each on its own GPU (CUDA_VISIBLE_DEVICES) and with
its own --out: their rows.jsonl, one after the other, are those of one run.
Exit status 1 if a row failed, or a bar that was measured was missed.
"""

import argparse
import contextlib
import sys
from dataclasses import asdict
from pathlib import Path

from gpu_checks import bars, sanitizer, supervision, tests, timings
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


TIMED = ("bench", "engines", "ranks")  # their rows are judged beside the ceilings of the same call


def judged(rows: list[Row]) -> tuple[list[str], bool]:
    """What bars say of the rows, a line each for those that were run and not met; whether all that were run are met and count."""
    rows = [row for row in rows if not row.is_end()]
    as_kept = [asdict(row) for row in rows]
    of = [row for row in bars.timed(as_kept)]
    if not of:
        return [], True
    if others := {row["gpu"] for row in of} - {bars.DEVICE}:
        return [f"bars: not judged, they are of one {bars.DEVICE} and not of {', '.join(sorted(others)) or 'another GPU'}"], True
    found, valid = bars.verdicts(as_kept), bars.are_valid(as_kept)
    counts = ", ".join(f"{sum(verdict == word for _, _, verdict in found)} {word}" for word in bars.WORDS)
    lines = [
        f"bars: {counts}; " + ("they count" if valid else "they do not count: ceilings beside them are over 5 % off, or were not measured")
    ]
    missed = [(bar, value, verdict) for bar, value, verdict in found if verdict in ("missed", "not measured")]
    lines += [f"{verdict}: {bar.row}, {bar.what}, wanted {bar.words()}, found {value}" for bar, value, verdict in missed]
    return lines, valid and not missed


def table(rows: list[Row], limit: int = 100) -> str:
    """Counts, bars that were missed, rows that failed; then what else there is room for."""
    lines = []
    rows = [row for row in rows if not row.is_end() or row.status == "failed"]
    for stage in STAGES:
        of = [row for row in rows if row.stage == stage]
        if of:
            lines.append(f"{stage}: " + ", ".join(f"{sum(r.status == s for r in of)} {s}" for s in ("passed", "failed", "skipped")))
    lines += judged(rows)[0]
    told = [" ".join(f"{row.status} {row.stage} {row.name} {row.values or ''} {row.text[:400]}".split()) for row in rows]
    failed = [line for row, line in zip(rows, told, strict=True) if row.status == "failed"]
    room = limit - len(lines)
    lines += failed if len(failed) <= room else [*failed[: room - 1], f"and {len(failed) - room + 1} more that failed"]
    total: dict[str, int] = {}
    for row in rows:
        if row.stage in ("kernels", "groups", "rank_rows"):
            for kernel, count in row.values.items():
                total[kernel] = total.get(kernel, 0) + count
    lines += [f"  {count:6} rows on {kernel}" for kernel, count in sorted(total.items())]
    shown = ("probe", *TIMED, "supervision")
    lines += [line for row, line in zip(rows, told, strict=True) if row.stage in shown and row.status != "failed"]
    return "\n".join(lines[:limit])


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
    stages = args.stages or list(STAGES)
    if "probe" not in stages and not set(TIMED).isdisjoint(stages):
        stages = ["probe", *stages]
    for stage in stages:
        run_stage(check, stage)
        if check.is_over():
            break
    print(table(check.rows))
    return 0 if judged(check.rows)[1] and all(row.status != "failed" for row in check.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
