"""docs/coming-from-tensorrt.md: every row names a test or program that is there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from-tensorrt.md"
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def table_rows():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [row for row in rows if not row.startswith(("| TensorRT |", "| | contradiction", "| | instead", "| Python |", "| C++ |"))]


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: row[:40])
def test_every_row_is_proved(row):
    proofs = LINK.findall(row.rstrip("| ").rsplit("|", 1)[-1])
    undecided_yet = ("X-11", "X-16")  # about front ends that are not built
    assert proofs or row.split("|")[1].strip() in undecided_yet
    for name, path in proofs:
        text = (PAGE.parent / path).read_text(encoding="utf-8")
        assert f"def {name}(" in text or path.endswith(name)


def test_every_link_leads_somewhere():
    for _, path in LINK.findall(PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / path).exists(), path


def test_every_contradiction_is_decided():
    rows = {row.split("|")[1].strip() for row in table_rows()}
    assert {f"X-{i}" for i in range(1, 22)} <= rows
