"""What a GPU gave at most, in the call of tools/gpu_check.py that timed other rows on it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

DESIGN_COPY, DESIGN_PRODUCT = 4.24, 676  # TB/s and TFLOP/s: the ceilings that bars were set beside; they count where both are within 5 %
MOST_OFF = 0.05


@dataclass
class Ceilings:
    copy: float  # TB/s
    products: list[float]  # TFLOP/s, last the one that bars go by

    def are_valid(self) -> bool:
        return abs(self.copy / DESIGN_COPY - 1) <= MOST_OFF and abs(self.products[-1] / DESIGN_PRODUCT - 1) <= MOST_OFF


def same_gpu(one: dict, other: dict) -> bool:
    """Rows of runs that were kept before rows said so are of one."""
    return one.get("uuid", "").split(",")[0] == other.get("uuid", "").split(",")[0]


def ceilings_of(row: dict, rows: Iterable[dict]) -> Ceilings | None:
    """Those that the call which gave `row` measured; else those of another call on the same GPU."""
    beside = [other for other in rows if other["name"] == "ceilings" and other["status"] == "passed" and same_gpu(row, other)]
    own = [other for other in beside if other.get("begun") == row.get("begun")]
    for other in (own or beside)[-1:]:
        lines = [json.loads(line) for line in other["text"].splitlines()]
        products = [line["tflop_s"] for line in lines if line["name"].startswith("product")]
        return Ceilings(next(line["tb_s"] for line in lines if line["name"] == "copy"), products)
    return None
