#!/usr/bin/env python3
"""Runs every model of this folder on every mesh with its recorded cases, and compares what is refused with ../refused.txt.

    run_cases.py [GROUP…] [--tandem PROGRAM] [--device cuda] [--meshes one+tp=2] [--isolate threads] [--most-ranks 2] [--jobs 2]
                 [--timeout 60] [-v]

A cell is one model on one mesh. It passes, or it is refused by an error whose text holds the words of its line in refused.txt; anything
else fails: a wrong result, a refusal that is not listed, a listed cell that passes, a crash, a hang. Heads never excuse a cell here: all
models have heads that divide by 2 and 4. The group `others` holds models that need not work yet: there an error that names a node counts.
"""

import argparse
import json
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ONE = "one"  # a single rank
MESHES = ["tp=2", "tp=4", "cp=2", "dp=2", "dp=2,tp=2", "cp=2,tp=2"]
WHOLE = ["mlp", "bert", "gpt2", "llama", "qwen", "sdpa", "resnet", "vit", "unet", "dit"]  # unsharded models: every mesh
DEATH = re.compile(r"signal|killed|exited|no answer|deadline|timed out|our bug|internal", re.I)  # errors that are no refusal
SHARDED = ["collective", "sharded"]  # files that other tools sharded
GROUPS = [*WHOLE, *SHARDED, "others"]


@dataclass
class Job:
    """One call of `tandem verify`: a model and the cells that the call answers."""

    group: str
    model: str
    meshes: list[str]  # "ranks=N" for files already sharded
    command: list[str]


@dataclass
class Cell:
    group: str
    model: str
    mesh: str
    passed: bool
    error: str = ""  # why it was refused; empty when it ran
    broken: str = ""  # a crash, a hang or a wrong result: never acceptable


def group_of(model: str) -> str:
    return next((g for g in [*WHOLE, *SHARDED] if model.startswith(g)), "others")


def rank_count(cases: Path) -> int:
    with cases.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return 1 + max(int(match.group(1)) for name in header if (match := re.match(r"case\d+\.rank(\d+)\.", name)))


def find_jobs(tandem: Path, groups: list[str], options: list[str], all_meshes: list[str]) -> list[Job]:
    if ONE in all_meshes and len(all_meshes) > 1:
        return find_jobs(tandem, groups, options, [ONE]) + find_jobs(tandem, groups, options, [mesh for mesh in all_meshes if mesh != ONE])
    jobs = []
    for cases in sorted(FOLDER.glob("*.safetensors")):
        model, group = cases.stem, group_of(cases.stem)
        if group not in groups:
            continue
        file = FOLDER / (model + ".onnx")
        if not file.exists():
            file = FOLDER / (model + "_rank{rank}.onnx")
        if group in SHARDED and all_meshes == [ONE]:
            continue
        if group in SHARDED:
            ranks = rank_count(cases)
            meshes, where = [f"ranks={ranks}"], ["--ranks", str(ranks)]
        else:
            meshes = all_meshes if group in WHOLE else all_meshes[:1]
            where = [word for mesh in meshes if mesh != ONE for word in ("--mesh", mesh)]
        jobs.append(Job(group, model, meshes, [str(tandem), "verify", str(file), *where, "--cases", str(cases), "--json", *options]))
    return jobs


def message_of(error: object) -> str:
    return error.get("message", json.dumps(error)) if isinstance(error, dict) else str(error)


def read_results(job: Job, done: subprocess.CompletedProcess) -> list[Cell]:
    """`verify --json`: {"results": [{"mesh", "passed", "error"}]}, or {"error"} when nothing ran."""
    report = json.loads(done.stdout)
    if report.get("error"):
        return [Cell(job.group, job.model, mesh, False, error=message_of(report["error"])) for mesh in job.meshes]
    results = report["results"]
    if len(results) != len(job.meshes):
        raise ValueError(f"{len(results)} results for {len(job.meshes)} meshes")
    if done.returncode == 0 and not all(result["passed"] for result in results):
        raise ValueError("exit status 0 with a result that did not pass")
    cells = []
    for mesh, result in zip(job.meshes, results, strict=True):
        cell = Cell(job.group, job.model, mesh, bool(result["passed"]))
        if not cell.passed and result.get("error"):
            cell.error = message_of(result["error"])
            cell.broken = cell.error if DEATH.search(cell.error) else ""
        elif not cell.passed:
            cell.broken = "wrong result: " + json.dumps(result.get("outputs", result))[:400]
        cells.append(cell)
    return cells


def too_many_ranks(job: Job, most: int) -> bool:
    """Of files that other tools sharded, whose ranks are as many as they are."""
    match = re.fullmatch(r"ranks=(\d+)", job.meshes[0])
    return match is not None and int(match.group(1)) > most


def run(job: Job, timeout: float) -> list[Cell]:
    try:
        done = subprocess.run(job.command, capture_output=True, text=True, timeout=timeout * len(job.meshes))
        if done.returncode not in (0, 1):
            broken = f"exit status {done.returncode}: {done.stderr.strip()[-400:]}"
        else:
            return read_results(job, done)
    except subprocess.TimeoutExpired:
        broken = f"no end after {timeout * len(job.meshes):.0f} s"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        broken = f"unexpected output ({error}): {done.stdout[:200]!r} {done.stderr.strip()[-400:]}"
    return [Cell(job.group, job.model, mesh, False, broken=broken) for mesh in job.meshes]


def read_refused(path: Path) -> dict[tuple[str, str], str]:
    """MODEL MESH WORDS, one cell a line; '#' starts a comment, `host` a line about rows of tests/kernels on GPUs."""
    listed = {}
    models = {p.stem for p in FOLDER.glob("*.safetensors")}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith(("#", "host ")):
            continue
        words = line.split(maxsplit=2)
        if len(words) != 3 or words[0] not in models or words[1] not in MESHES or (words[0], words[1]) in listed:
            sys.exit(f"{path.name}:{number}: not a line MODEL MESH WORDS of a known model and mesh, or given twice: {line}")
        listed[words[0], words[1]] = words[2]
    return listed


def judge(cell: Cell, listed: dict[tuple[str, str], str]) -> tuple[str, str]:
    """passed, refused, unsupported or failed, and why."""
    words = listed.get((cell.model, cell.mesh))
    if cell.broken:
        return "failed", cell.broken
    if cell.passed:
        return ("passed", "") if words is None else ("failed", "passes, yet refused.txt lists it")
    if cell.group == "others":
        named = re.search(r'\[[^\]"]*"[^"]*"[^\]]*\]', cell.error)
        return ("unsupported", cell.error) if named else ("failed", "refused without naming a node: " + cell.error)
    if words is None:
        return "failed", "refused: " + cell.error
    if words.lower() not in cell.error.lower():
        return "failed", f"refused, but not with the words {words!r}: {cell.error}"
    return "refused", cell.error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], metavar="GROUP", help=", ".join(GROUPS) + " (default: all)")
    parser.add_argument("--tandem", type=Path, default=FOLDER.parent.parent / "build/cpu/bin/tandem")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--meshes", default="+".join(MESHES), help="separated by +; one: a single rank (default: %(default)s)")
    parser.add_argument("--isolate", default="processes", choices=["processes", "threads"])
    parser.add_argument("--most-ranks", type=int, default=1000, help="files that were sharded for more are skipped")
    parser.add_argument("--refused", type=Path, default=FOLDER.parent / "refused.txt")
    parser.add_argument("--jobs", type=int, default=2, help="calls at a time")
    parser.add_argument("--timeout", type=float, default=60, help="seconds per cell")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every cell")
    args = parser.parse_args()
    listed = read_refused(args.refused)
    options = ["--device", args.device, "--isolate", args.isolate]
    jobs = find_jobs(args.tandem, args.groups or GROUPS, options, args.meshes.split("+"))
    skipped = [job for job in jobs if too_many_ranks(job, args.most_ranks)]
    jobs = [job for job in jobs if job not in skipped]
    for job in skipped:
        print(f"skipped  {job.model} {job.meshes[0]}  these are more ranks than {args.most_ranks}", flush=True)
    count = {"passed": 0, "refused": 0, "unsupported": 0, "failed": 0}
    with ThreadPoolExecutor(args.jobs) as pool:
        for cells in pool.map(lambda job: run(job, args.timeout), jobs):
            for cell in cells:
                verdict, why = judge(cell, listed)
                count[verdict] += 1
                if verdict == "failed" or args.verbose:
                    print(f"{verdict:8} {cell.model} {cell.mesh}  {why}", flush=True)
    print(
        f"{count['passed']} passed, {count['refused']} refused as listed, "
        f"{count['unsupported']} of models that need not work yet refused by node, {len(skipped)} skipped, {count['failed']} failed"
    )
    return 1 if count["failed"] or not (skipped or sum(count.values())) else 0


if __name__ == "__main__":
    sys.exit(main())
