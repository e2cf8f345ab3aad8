"""ONNX's own backend suite, as its runner runs it, on one rank and with the inputs split over two: what is not refused is right.

docs/onnx_backend.md has how many cases pass; TANDEM_RENEW_DOCS=1 writes the numbers anew.
"""

from __future__ import annotations

import os
import re
import unittest
import warnings
from pathlib import Path

import onnx.backend.test
import pytest
import tandem
from tandem.onnx_backend import TandemBackend

PAGE = Path(__file__).resolve().parents[2] / "docs" / "onnx_backend.md"
GROUPS = ("Node", "Simple", "PyTorchConverted", "PyTorchOperator")  # those of real models are downloaded
REFUSALS = (tandem.errors.UnsupportedError, tandem.errors.InvalidModelError, tandem.errors.InvalidArgumentError)


class OnTwoRanks(TandemBackend):
    """Every case with the first dimension of its inputs split."""

    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        return super().prepare(model, device, ranks=2, **kwargs)


class Refusals(unittest.TestResult):
    """Keeps what each case ended with."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, BaseException] = {}

    def addError(self, test, err):  # noqa: N802 - unittest's names
        self.ended[test.id().split(".")[-1]] = err[1]

    addFailure = addError  # noqa: N815

    def addSkip(self, test, reason):  # noqa: N802
        assert reason == "Not compatible with backend"  # as is_compatible says
        self.ended[test.id().split(".")[-1]] = tandem.errors.UnsupportedError(reason)


def passed(backend: type[TandemBackend], group: str) -> tuple[int, int]:
    """How many cases there are and how many pass; the others are refused in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = onnx.backend.test.BackendTest(backend, __name__).test_cases[f"OnnxBackend{group}ModelTest"]
        names = [name for name in dir(cases) if name.startswith("test_") and name.endswith("_cpu")]
        result = Refusals()
        unittest.TestSuite(cases(name) for name in names).run(result)
    assert len(names) > 20
    wrong = {name: error for name, error in result.ended.items() if not isinstance(error, REFUSALS)}
    assert wrong == {}
    return len(names), len(names) - len(result.ended)


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_not_refused_is_right(group):
    cases, one = passed(TandemBackend, group)
    _, two = passed(OnTwoRanks, group)
    page = PAGE.read_text(encoding="utf-8")
    row = re.compile(rf"^\| `{group}` \|(.*)\| (\d+) \| (\d+) \| (\d+) \|$", re.M)
    if os.environ.get("TANDEM_RENEW_DOCS"):
        PAGE.write_text(row.sub(rf"| `{group}` |\1| {cases} | {one} | {two} |", page), encoding="utf-8")
        return
    assert [int(number) for number in row.search(page).groups()[1:]] == [cases, one, two]
