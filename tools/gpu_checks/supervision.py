"""What it costs that GPUs count the collectives that they have begun, where other ranks see it."""

import json
from collections.abc import Iterator

from gpu_checks.rows import Check, Row, gpus


def supervision(check: Check) -> Iterator[Row]:
    """The same recorded calls with and without, by turns in one program; `cost` is the ratio of their times."""
    count, group = gpus(), "all"
    if count < 2:
        yield Row("supervision", group, "skipped", 0, "this machine has one GPU")
        return
    if check.group_is_known("supervision", group):
        return
    status, text, seconds = check.call([check.program("gpu_groups_bench"), str(count), "supervision"], 150)
    for line in text.splitlines():
        values = json.loads(line) if line.startswith("{") else {}
        if "refused" in values:
            yield Row("supervision", f"by {values['backend']}", "skipped", 0, values["refused"], group=group)
        elif "name" in values:
            yield Row("supervision", values.pop("name"), "passed", 0, "", values, group=group)
    told = "" if status == 0 else text.strip()[-600:]
    yield Row("supervision", group, "passed" if status == 0 else "failed", seconds, told, group=group)
