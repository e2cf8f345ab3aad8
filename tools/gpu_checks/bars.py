"""What one H200 and four of them should reach, and whether the rows of a run say so."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpu_checks.ceilings import DESIGN_COPY, ceilings_of

DEVICE = "NVIDIA H200"  # that they were set for
WORDS = ("met", "missed", "not measured", "not run")


@dataclass
class Bar:
    row: str
    what: str
    value: Callable[[dict, float | None], float | None]  # of the row's values, and of a copy in TB/s, which may be unknown
    bound: float
    least: bool = True  # whether the value should be at least the bound, or at most

    def words(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


def key(name: str) -> Callable[[dict, float | None], float | None]:
    return lambda values, _: values.get(name)


def of_copy(values: dict, copy: float | None) -> float | None:
    """Of a copy: the faster of the one of as many bytes that was timed in turn with the row, where there was one, and the run's large one,
    since recorded copies of half a GB go at two thirds of what the memory gives."""
    beside = max(values.get("copy_gb_s", 0), (copy or 0) * 1e3)
    return values["gb_s"] / beside if beside and "gb_s" in values else None


def of_design(values: dict, _: float | None) -> float | None:
    return values["gb_s"] / DESIGN_COPY / 1e3 if "gb_s" in values else None


def terabytes(values: dict, _: float | None) -> float | None:
    return values["gb_s"] / 1e3 if "gb_s" in values else None


PRODUCTS = tuple(f"MatMul {extents} bf16 through an engine" for extents in ("8192", "2048x14336x4096", "16x4096x4096"))
ATTENTION = ("Attention 8K", "Attention 32K", "Attention 131K")
STREAMS = ("LayerNorm", "RmsNorm", "Softmax 4096", "Softmax 512", "RotaryEmbedding", "Pointwise of six")
VECTORS = (("MatMul 1x4096x28672 bf16", 4.2), ("MatMul 1x4096x7168 bf16", 3.9), ("MatMul 1x4096x1536 bf16", 2.9))
DECODE = (  # those of 64 MB and more
    *(f"Attention decode {n}" for n in (16384, 32768)),
    *(f"Attention decode {n}, batch 16" for n in (1024, 2048, 4096, 8192, 32768)),
)
MODELS = tuple(f"{model} f16 batch {batch}" for model in ("BERT-large 384", "ResNet-50 224") for batch in (1, 32))
BARS = [
    *(Bar(row, "cuBLASLt alone / ours", key("library_ratio"), 0.98) for row in PRODUCTS),
    *(Bar(row, "cuDNN alone / ours", key("library_ratio"), 0.98) for row in ATTENTION),
    *(Bar(row, "of a copy of the same bytes", of_copy, 0.88) for row in STREAMS),
    *(Bar(row, "TB/s", terabytes, bound) for row, bound in VECTORS),
    *(Bar(row, "of 4.24 TB/s", of_design, 0.75) for row in DECODE),
    *(Bar(row, "torch.compile / ours", key("ratio"), 1.0) for row in MODELS),
    Bar("enqueue of 200 kernels, replayed", "µs of the host, median", key("p50_us"), 20, False),
    Bar("enqueue of 200 kernels, replayed", "µs of the host, 99 of 100", key("p99_us"), 60, False),
    Bar("memory beyond weights, arena and workspace", "MB", key("mb"), 200, False),
    Bar("first output of a 15 GB engine", "s", key("seconds"), 6, False),
]


def of_way(way: str) -> Callable[[dict, float | None], float | None]:
    """Our time over that of one of the peer's ways; where it has none, words stand for it."""

    def ratio(values: dict, _: float | None) -> float | None:
        theirs = (values.get("peer") or {}).get(way)
        return values["us"] / theirs if isinstance(theirs, (int, float)) else None

    return ratio


RANKS = 4  # what follows was set for that many GPUs
FUSED = "AllReduce + residual + RmsNorm {} KB"
SUPERVISED = ("8 KB", "64 KB", "1024 KB", "chain of 64, 64 KB and a product")  # as bench/gpu_supervision.cpp names them
RANK_BARS = [
    *(Bar(f"Attention over ranks {k}K", "PyTorch / ours", key("ratio"), bound) for k, bound in ((8, 1.45), (32, 1.08), (128, 0.99))),
    *(Bar(f"Attention over ranks {k}K causal", "PyTorch / ours", key("ratio"), bound) for k, bound in ((8, 1.35), (32, 1.15), (128, 1.03))),
    *(Bar(FUSED.format(kb), "µs", key("us"), bound, False) for kb, bound in ((8, 3.4), (64, 4.1), (512, 9.0))),
    *(
        Bar(FUSED.format(kb), f"ours / {way} and a kernel", of_way(way), 1.0, False)
        for kb in (4096, 16384)
        for way in ("NCCL", "NCCL windows")
    ),
    *(Bar(f"supervision {what} by {way}", "with / without", key("cost"), 1.01, False) for what in SUPERVISED for way in ("peer", "nccl")),
]
ONE_GPU, SEVERAL_GPUS = ("bench", "engines"), ("ranks", "supervision")  # the stages that have them


def judged(of: Iterable[Bar], rows: Iterable[dict], stages: Iterable[str]) -> list[tuple[Bar, float | None, str]]:
    """Of each bar what was measured, and: met, missed, not measured (the row was run, but gave no figure), not run. With the ceilings of
    the row's own GPU."""
    rows = list(rows)
    by_name = {row["name"]: row for row in timed(rows, stages) if row["status"] != "skipped"}
    found = []
    for bar in of:
        row = by_name.get(bar.row)
        ceilings = ceilings_of(row, rows) if row else None
        value = bar.value(row["values"], ceilings.copy if ceilings else None) if row else None
        found.append(
            (bar, value, "not run" if row is None else "not measured" if value is None else "met" if bar.holds(value) else "missed")
        )
    return found


def verdicts(rows: Iterable[dict]) -> list[tuple[Bar, float | None, str]]:
    return judged(BARS, rows, ONE_GPU)


def rank_verdicts(rows: Iterable[dict], gpus: int) -> list[tuple[Bar, float | None, str]]:
    """On another number of GPUs than the bars were set for what was measured is not judged."""
    found = judged(RANK_BARS, rows, SEVERAL_GPUS)
    if gpus == RANKS:
        return found
    return [(bar, value, verdict if value is None else "not judged") for bar, value, verdict in found]


def timed(rows: Iterable[dict], stages: Iterable[str] = ONE_GPU) -> list[dict]:
    return [row for row in rows if row["stage"] in stages]


def are_valid(rows: list[dict], stages: Iterable[str] = ONE_GPU) -> bool:
    """Whether each timed row has ceilings beside it that bars count with."""
    found = [ceilings_of(row, rows) for row in timed(rows, stages)]
    return all(ceilings is not None and ceilings.are_valid() for ceilings in found)
