#!/usr/bin/env python3
"""Keeps a run of tools/gpu_check.py: bench/results/DATE-COMMIT-DEVICE.json, of several GPUs DATE-COMMIT-2x-DEVICE.json, and the tables of
docs/gpu.md made from the newest run on one GPU and on each number of several.

    gpu_results.py ROWS.jsonl [--manifest build/gpu/manifest.json] [--date YYYY-MM-DD]
    gpu_results.py --check      the tables of docs/gpu.md are those of the newest results; exit status 1 if not

Refuses a pack that was made from a tree with changes that were not committed, and rows of GPUs of several kinds. A file that says "made_by"
was put together by hand: no table of one GPU is made from it, and of several only, with these words, while there is no other of as many.
"""

import argparse
import datetime
import json
import re
import sys
from pathlib import Path

from gpu_check import STAGES
from gpu_checks.bars import WORDS, are_valid, of_copy, verdicts
from gpu_checks.ceilings import DESIGN_COPY, DESIGN_PRODUCT, ceilings_of
from gpu_checks.several import STATUSES, block_of, count_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
PAGE = ROOT / "docs/gpu.md"
BEGIN, END = "<!-- results: made by tools/gpu_results.py -->\n", "<!-- end of results -->\n"
BEGIN_SEVERAL = "<!-- results of several GPUs: made by tools/gpu_results.py -->\n"
END_SEVERAL = "<!-- end of results of several GPUs -->\n"


def device_of(rows: list[dict]) -> str:
    """The GPUs' kind as nvidia-smi names it, a line each; before it the most that one call had, if several: 2x NVIDIA H200."""
    texts = [row["text"] for row in rows if row["stage"] == "probe" and row["name"] == "gpu" and row["status"] == "passed"]
    calls = [[line.split(",")[0].strip() for line in text.splitlines() if "," in line] for text in texts]
    kinds, count = sorted({kind for call in calls for kind in call}), max(map(len, calls), default=0)
    if not kinds:
        sys.exit("no row of the stage `probe` says which GPUs these were")
    if len(kinds) > 1:
        sys.exit(f"the GPUs are of several kinds: {', '.join(kinds)}")
    return kinds[0] if count == 1 else f"{count}x {kinds[0]}"


def counts(rows: list[dict], stage: str) -> str:
    of = [row for row in rows if row["stage"] == stage]
    if not of:
        return "not run"
    return ", ".join(f"{sum(row['status'] == status for row in of)} {status}" for status in STATUSES)


def calls_of(rows: list[dict]) -> list[str]:
    """Which calls of tools/gpu_check.py made the run, and on which GPUs; rows that were kept before they said so tell nothing."""
    calls: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.get("begun"):
            calls.setdefault((row["begun"], row["uuid"]), []).append(row["stage"])
    lines = [
        f"- from {begun} on {', '.join(uuid[:12] for uuid in uuids.split(','))}: {', '.join(stage for stage in STAGES if stage in stages)}"
        for (begun, uuids), stages in sorted(calls.items())
    ]
    return ["", f"Rows came from {len(lines)} calls, each with ceilings of its own GPU where it took times:", "", *lines] if lines else []


def number(value: object, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def engine_lines(rows: list[dict]) -> list[str]:
    """The table of whole engines; nothing where the run had none."""
    lines = []
    for row in rows:
        if row["stage"] != "engines":
            continue
        v = row["values"]
        if "p50_us" in v:
            got, against = f"{v['p50_us']:.1f} / {v['p99_us']:.1f} µs (p50 / p99)", f"bar {v['bar']}"
        elif "mb" in v:
            got, against = f"{v['mb']:.0f} MB", f"bar {v['bar']}"
        elif "seconds" in v:
            got, against = f"{v['seconds']:.2f} s", f"bar {v['bar']}"
        else:
            got = f"{v['us']:.0f} µs" if "us" in v else f"{row['status']}: {row['text'][:120]}"
            against = f"torch.compile {v['peer_us']:.0f} µs, {v['ratio']:.2f} of ours" if "peer_us" in v else ""
            against = f"cuBLASLt alone {v['library_us']:.1f} µs, {v['library_ratio']:.2f} of ours" if "library_us" in v else against
        lines.append(f"| {row['name']} | {got} | {against} | {number(v.get('error'), 4)} |")
    return ["", "| whole engines | measured | against | error |", "|---|---|---|---|", *lines] if lines else []


def bar_lines(rows: list[dict]) -> list[str]:
    of = verdicts(rows)
    counts = ", ".join(f"{sum(verdict == word for _, _, verdict in of)} {word}" for word in WORDS)
    beside = "are" if are_valid(rows) else "are not"
    return [
        "",
        f"Bars: {counts}. The run's ceilings {beside} within 5 % of those that the bars were set beside.",
        "",
        "| bar | | wanted | measured | |",
        "|---|---|---|---|---|",
        *(f"| {bar.row} | {bar.what} | {bar.words()} | {number(value)} | {verdict} |" for bar, value, verdict in of),
    ]


def page_of(result: dict) -> str:
    rows = result["rows"]
    kernels = {}
    for row in rows:
        if row["stage"] == "kernels":
            for kernel, count in row["values"].items():
                kernels[kernel] = kernels.get(kernel, 0) + count
    ceilings = ceilings_of(next((row for row in rows if row["stage"] == "bench"), rows[0]), rows)
    if ceilings is None:
        sys.exit("the run measured no ceilings of the GPU that it took times on: the stage `probe`")
    copy, products = ceilings.copy, ceilings.products
    product = products[-1]  # on end, as the one that bars go by was measured, where the run has that
    what = f"a bf16 product of 8192 ({product / DESIGN_PRODUCT:.2f})"
    if len(products) > 1:
        what = f"bf16 products of 8192 on end ({product / DESIGN_PRODUCT:.2f}; one at a time {products[0]:.0f})"
    host = sum(count for kernel, count in kernels.items() if kernel.startswith("cuda_host"))
    total = sum(kernels.values())
    lines = [
        f"`tools/gpu_check.py` at commit {result['commit']} on one {result['device']}, {result['date']} "
        f"(`bench/results/{result['file']}`).",
        "",
        "| stage | rows |",
        "|---|---|",
        *(f"| {stage} | {counts(rows, stage)} |" for stage in STAGES),
        *calls_of(rows),
        "",
        f"Rows of the kernels' tests, by name: {total}, of which {host} went through the host"
        + (
            ": " + ", ".join(sorted({k.removeprefix("cuda_host (").rstrip(")") for k in kernels if k.startswith("cuda_host")}))
            if host
            else ""
        )
        + ".",
        "",
        f"Ceilings in the same run, by PyTorch: {copy:.2f} TB/s for a copy of 8 GB on the device ({copy / DESIGN_COPY:.2f} of "
        f"the figure that bars go by), {product:.0f} TFLOP/s for {what}.",
        "",
        "| row | kernel | µs | GB/s | of the copy | TFLOP/s | PyTorch µs | PyTorch / ours | library alone / ours | largest error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["stage"] != "bench":
            continue
        v = row["values"]
        error = v.get("error", -1)
        beside = ceilings_of(row, rows)
        share = of_copy(v, beside.copy if beside else None) if "tflop_s" not in v else None
        lines.append(
            f"| {row['name']} | {v.get('kernel', row['text'][:60])} | {number(v.get('us'))} | {number(v.get('gb_s'), 0)} "
            f"| {number(share)} | {number(v.get('tflop_s'), 0)} "
            f"| {number(v.get('peer_us'))} | {number(v.get('ratio'))} | {number(v.get('library_ratio'))} "
            f"| {'not compared' if error < 0 else f'{error:.1e}'} |"
        )
    return "\n".join(lines + engine_lines(rows) + bar_lines(rows)) + "\n"


def between(text: str, begin: str, end: str, made: str) -> str:
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{PAGE.name} has no place for results: {begin.strip()}")
    return before + begin + made + end + after


def write_page(check: bool, result: dict | None = None) -> int:
    """`result`: one that takes the place of what else was run on as many GPUs."""
    text = PAGE.read_text(encoding="utf-8")
    shown = newest(text) | ({count_of(result["file"]): result} if result else {})
    several = [shown[count] for count in sorted(shown, reverse=True) if count > 1]
    wanted = between(text, BEGIN_SEVERAL, END_SEVERAL, "".join(line + "\n" for one in several for line in block_of(one)))
    if 1 in shown:
        wanted = between(wanted, BEGIN, END, page_of(shown[1]))
    if check:
        return 0 if wanted == text else 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


def newest(page: str) -> dict[int, dict]:
    """By number of GPUs; of several runs of one day the one that the page names. What was put together by hand is shown of several GPUs
    only, and only where there is no other run on as many."""
    files = sorted(RESULTS.glob("*.json"), key=lambda file: (file.name[:10], file.name in page, file.name))
    found = {file: json.loads(file.read_text(encoding="utf-8")) for file in files}
    by_hand = {count_of(file): one for file, one in found.items() if "made_by" in one and count_of(file) > 1}
    last = by_hand | {count_of(file): one for file, one in found.items() if "made_by" not in one}
    if not last:
        sys.exit("bench/results holds none")
    return last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="?")
    parser.add_argument("--manifest", type=Path, default=ROOT / "build/gpu/manifest.json")
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        return write_page(True)
    rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    manifest = json.loads(args.manifest.read_text(encoding="utf-8"))
    if manifest["dirty"]:
        sys.exit("the pack was made from a tree with changes that were not committed")
    if any(row["programs"] != manifest["programs"] for row in rows):
        sys.exit("the rows are of other programs than the pack's")
    kinds = {row["gpu"] for row in rows}
    if len(kinds) > 1 or " and " in "".join(kinds):
        sys.exit(f"the rows are of GPUs of several kinds: {', '.join(sorted(kinds))}")
    device = device_of(rows)
    groups = {row.get("group") for row in rows}  # a row of that name says that all of them were run, and tells nothing else
    for row in rows:
        row.pop("programs")
        row["text"] = re.sub(
            r"/(?:tmp|work|root|home|opt)/\S*?([^/\s]+)(?=[\s,]|$)", r"\1", row["text"]
        )  # places of one machine tell nothing
    rows = [row for row in rows if not row.pop("group", "") or row["status"] != "passed" or row["name"] not in groups]
    name = f"{args.date}-{manifest['commit']}-{device.replace(' ', '-')}.json"
    result = {"file": name, "date": args.date, "commit": manifest["commit"], "device": device, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return write_page(False, result)


if __name__ == "__main__":
    sys.exit(main())
