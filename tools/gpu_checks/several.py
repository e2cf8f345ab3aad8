"""What docs/gpu.md shows of a run on several GPUs: counts by what carried the collectives, times beside PyTorch's, bars."""

import re
from pathlib import Path

from gpu_checks.bars import RANKS, SEVERAL_GPUS, WORDS, are_valid, rank_verdicts

STATUSES = ("passed", "failed", "skipped")


def count_of(file: str | Path) -> int:
    """How many GPUs a kept file is of, by its name: DATE-COMMIT-2x-DEVICE.json, or without a number of one."""
    found = re.match(r"[\d-]{10}-[^-]+-(\d+)x-", Path(file).name)
    return int(found[1]) if found else 1


def way_of(row: dict) -> str:
    """What carried the row's collectives and what its ranks were, as its name says it; a word or two, or nothing."""
    if found := re.search(r" by ([\w, ]+)$", row["name"]):
        return found[1]
    found = re.search(r"/((?:nccl|peer|host)[a-z_]*?)(?:_\d+)?$", row["name"])
    return found[1].replace("_", ", ") if found else ""


def count_lines(rows: list[dict]) -> list[str]:
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        of = counts.setdefault((row["stage"], way_of(row)), dict.fromkeys(STATUSES, 0))
        of[row["status"]] += 1
    return [
        "| stage | way | passed | failed | skipped |",
        "|---|---|---|---|---|",
        *(f"| {stage} | {way} | {' | '.join(str(of[status]) for status in STATUSES)} |" for (stage, way), of in counts.items()),
    ]


def kernel_lines(rows: list[dict]) -> list[str]:
    kernels: dict[str, int] = {}
    for row in rows:
        if row["stage"] in ("kernels", "groups", "rank_rows"):
            for kernel, count in row["values"].items():
                kernels[kernel] = kernels.get(kernel, 0) + count
    if not kernels:
        return []
    return ["", f"Rows of tests by what ran them: {', '.join(f'{count} {kernel}' for kernel, count in sorted(kernels.items()))}."]


def words(text: str, most: int) -> str:
    """On one line of a table."""
    return re.sub(r"[\s|`]+", " ", text).strip()[:most]


def told_lines(rows: list[dict]) -> list[str]:
    """What failed, and what was left out as a whole for want of GPUs, in the words of the row."""
    told = []
    for row in rows:
        if row["status"] == "failed" or (row["status"] == "skipped" and re.search(r"need \d+ GPUs", row["text"])):
            told.append(f"- {row['status']}: {row['stage']}, {row['name']}: {words(row['text'], 200)}")
    return ["", *told] if told else []


def us(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def told_of(way: float | str) -> str:
    """The time of one of the peer's ways, or why it has none."""
    return f"({words(way, 80)})" if isinstance(way, str) else us(way)


def time_lines(rows: list[dict]) -> list[str]:
    lines = []
    for row in rows:
        values = row["values"]
        if row["stage"] == "ranks" and "us" in values:
            ways = [f"{way} {told_of(time)}" for way, time in (values.get("peer") or {}).items()]
            ratio = f"{values['ratio']:.2f}" if "ratio" in values else ""
            error = f"{values['error']:.1e}" if "error" in values else ""
            lines.append(f"| {row['name']} | {us(values['us'])} | {us(values.get('peer_us'))} | {ratio} | {', '.join(ways)} | {error} |")
    table = ["| row | Tandem µs | PyTorch µs | PyTorch / ours | PyTorch's ways, µs | largest error |", "|---|---|---|---|---|---|"]
    return ["", *table, *lines] if lines else []


def bar_lines(rows: list[dict], count: int) -> list[str]:
    of = rank_verdicts(rows, count)
    if all(value is None for _, value, _ in of):
        return []
    words = ", ".join(f"{sum(verdict == word for _, _, verdict in of)} {word}" for word in (*WORDS, "not judged"))
    beside = "The run measured no ceilings of a GPU."
    if any(row["name"] == "ceilings" and row["status"] == "passed" for row in rows):
        are = "are" if are_valid(rows, SEVERAL_GPUS) else "are not"
        beside = f"The run's ceilings {are} within 5 % of those that the bars were set beside."
    return [
        "",
        f"Bars, set for {RANKS} GPUs: {words}. {beside}",
        "",
        "| bar | | wanted | measured | |",
        "|---|---|---|---|---|",
        *(f"| {bar.row} | {bar.what} | {bar.words()} | {us(value)} | {verdict} |" for bar, value, verdict in of),
    ]


def block_of(result: dict) -> list[str]:
    """Lines of the page."""
    rows, count = result["rows"], count_of(result["file"])
    kind = re.sub(r"^\d+x? ", "", result["device"])
    return [
        f"`tools/gpu_check.py` at commit {result['commit']} on {count}×{kind} of one host, {result['date']} "
        f"(`bench/results/{result['file']}`).",
        *(["", f"Made by {result['made_by']}."] if "made_by" in result else []),
        "",
        *count_lines(rows),
        *told_lines(rows),
        *kernel_lines(rows),
        *time_lines(rows),
        *bar_lines(rows, count),
        "",
    ]
