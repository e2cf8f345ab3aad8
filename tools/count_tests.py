#!/usr/bin/env python3
"""Prints what a ctest run came to, from its --output-junit file: `cpu: 512 passed, 0 failed, 3 skipped in 41 s`, then each skipped test.

Exit status 1 if a test failed, or if none ran.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def reason(case: ElementTree.Element) -> str:
    """What the test itself says about being skipped, after a colon."""
    lines = (case.findtext("system-out") or "").splitlines()
    return next((f": {line.partition(':')[2].strip()}" for line in lines if line.startswith("skipped:")), "")


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit("usage: count_tests.py NAME FILE")
    name, path = sys.argv[1], Path(sys.argv[2])
    if not path.exists():
        sys.exit(f"{name}: no tests were run: {path} is not there")
    suite = ElementTree.parse(path).getroot()
    status = {case.get("name"): case.get("status") for case in suite.iter("testcase")}
    reasons = {case.get("name"): reason(case) for case in suite.iter("testcase")}
    passed = sum(1 for word in status.values() if word == "run")
    skipped = [test for test, word in status.items() if word in ("notrun", "disabled")]
    failed = [test for test, word in status.items() if word == "fail"]
    for test in skipped:
        print(f"{name}: skipped {test}{reasons[test]}")
    for test in failed:
        print(f"{name}: failed {test}")
    print(f"{name}: {passed} passed, {len(failed)} failed, {len(skipped)} skipped in {float(suite.get('time', 0)):.0f} s")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
