"""Stages that take times, ours and a peer's in turn."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_checks.bars import PRODUCTS, STREAMS
from gpu_checks.rows import ROOT, Check, Row, gpus


class Server:
    """A program that answers names with lines of JSON."""

    def __init__(self, check: Check, command: list[str], environment: dict[str, str] | None = None) -> None:
        environment = environment or check.environment
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        """Also where the stage ends early: a program that measures must not run beside another."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def ask(self, name: str, limit: float = 60) -> dict:
        late = threading.Timer(limit, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        return json.loads(line) if line else {"name": name, "failed": "the program ended, or gave no answer in time"}


PAIRS, RANK_PAIRS = 5, 3
COPY = "Copy of 1.07 GB"  # what rows that do little more than read and write are judged beside
MOST_ERROR = 0.03  # of the largest magnitude of a result


def bench(check: Check) -> Iterator[Row]:
    """Ours, PyTorch and the library alone in turn; times are medians, `ratio` PyTorch's over ours, `library_ratio` the library's: above
    1 we are faster."""
    status, text, _ = check.call([check.program("gpu_bench"), "--list"], 30)
    names = [name for name in text.splitlines() if ("bench", name) not in check.known]
    if not names:
        return
    with (
        Server(check, [check.program("gpu_bench")]) as ours,
        Server(check, [sys.executable, "bench/peers/gpu_torch.py"]) as peer,
        alone(check, "gpu_cublaslt") as cublaslt,
        alone(check, "gpu_cudnn") as cudnn,
    ):
        for name in names:
            attends = name.startswith("Attention ") and "decode" not in name
            library = cublaslt if name.startswith("MatMul") else cudnn if attends else None
            yield bench_row(name, ours, peer, library)


def alone(check: Check, name: str) -> contextlib.AbstractContextManager[Server | None]:
    """The program that runs a library alone; None where the pack has none."""
    program = check.program(name)
    return Server(check, [program]) if Path(program).exists() else contextlib.nullcontext()


def bench_row(name: str, ours: Server, peer: Server, library: Server | None) -> Row:
    begin, mine, theirs, by_library, copies, values = time.monotonic(), [], [], [], [], {}
    for i in range(PAIRS):
        answer = ours.ask(name)
        values = answer if i == 0 else values
        if "failed" in answer:
            break
        mine.append(answer["us"])
        if name in STREAMS:
            copies += [answer["gb_s"] for answer in [ours.ask(COPY)] if "gb_s" in answer]
        other = peer.ask(name)
        if "us" in other:
            theirs.append(other["us"])
        else:
            values["peer"] = other["failed"]
        if library:
            other = library.ask(name, 120)
            by_library += [other["us"]] if "us" in other else []
            if "us" not in other:
                values["library"] = other["failed"]
    values.pop("name", None)
    if not mine:
        return Row("bench", name, "failed", time.monotonic() - begin, values.get("failed", ""))
    scale = values["us"] / statistics.median(mine)
    values.update(
        {key: round(values[key] * scale, 2) for key in ("gb_s", "tflop_s") if key in values}, us=round(statistics.median(mine), 2)
    )
    if theirs:
        values.update(peer_us=round(statistics.median(theirs), 2), ratio=round(statistics.median(theirs) / statistics.median(mine), 3))
    if by_library:
        values.update(
            library_us=round(statistics.median(by_library), 2),
            library_ratio=round(statistics.median(by_library) / statistics.median(mine), 3),
        )
    if copies:
        values.update(copy_gb_s=round(statistics.median(copies), 2))
    compared = values.get("error", -1) >= 0
    passed = compared and values["error"] < MOST_ERROR
    told = "" if passed else f"the error is over {MOST_ERROR}" if compared else "the result was compared with nothing"
    return Row("bench", name, "passed" if passed else "failed", time.monotonic() - begin, told, values)


def products(check: Check) -> Iterator[Row]:
    """Products through engines, and cuBLASLt alone, in turn."""
    names = [name for name in PRODUCTS if ("engines", name) not in check.known]
    if not names:
        return
    with Server(check, [check.program("gpu_engine"), "products"]) as ours, alone(check, "gpu_cublaslt") as library:
        for name in names:
            yield product_row(name, ours, library) if library else Row("engines", name, "failed", 0, "the pack has no gpu_cublaslt")


def product_row(name: str, ours: Server, library: Server) -> Row:
    begin, mine, theirs, values = time.monotonic(), [], [], {}
    for i in range(PAIRS):
        answers = ours.ask(name, 120), library.ask(name)
        failed = [answer["failed"] for answer in answers if "us" not in answer]
        if failed:
            return Row("engines", name, "failed", time.monotonic() - begin, "; ".join(failed))
        values = answers[0] if i == 0 else values
        mine.append(answers[0]["us"])
        theirs.append(answers[1]["us"])
    us, library_us = statistics.median(mine), statistics.median(theirs)
    values.pop("name")
    values |= {"us": round(us, 2), "library_us": round(library_us, 2), "library_ratio": round(library_us / us, 3)}
    return Row("engines", name, "passed" if values.get("error", 1) < MOST_ERROR else "failed", time.monotonic() - begin, "", values)


def whole_models(check: Check) -> Iterator[Row]:
    """Engines of whole models through the Python package, and torch.compile with CUDA graphs, in turn. One side at a time has its model."""
    environment = {**check.environment, "PYTHONPATH": f"{check.unpacked / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
    status, text, _ = check.call([sys.executable, "bench/gpu_models.py", "--list"], 30)
    names = [name for name in text.splitlines() if ("engines", name) not in check.known] if status == 0 else []
    if not names:
        return
    with (
        Server(check, [sys.executable, "bench/gpu_models.py"], environment) as ours,
        Server(check, [sys.executable, "bench/peers/gpu_models_torch.py"]) as peer,
    ):
        for name in names:
            yield model_row(name, ours, peer)


def model_row(name: str, ours: Server, peer: Server) -> Row:
    begin, mine, theirs, values = time.monotonic(), [], [], {}
    for i in range(PAIRS):
        answer = ours.ask(name, 200)
        values = answer if i == 0 else values
        if "us" not in answer:
            break
        mine.append(answer["us"])
        other = peer.ask(name, 240)
        theirs += [other["us"]] if "us" in other else []
        if "us" not in other:
            values["peer"] = other["failed"]
    values.pop("name", None)
    if not mine:
        return Row(
            "engines",
            name,
            "skipped" if "refused" in values else "failed",
            time.monotonic() - begin,
            values.get("refused", values.get("failed", "")),
        )
    values.update(us=round(statistics.median(mine), 2))
    if theirs:
        values.update(peer_us=round(statistics.median(theirs), 2), ratio=round(statistics.median(theirs) / statistics.median(mine), 3))
    return Row("engines", name, "passed" if values.get("error", 1) < 0.05 else "failed", time.monotonic() - begin, "", values)


FIRST_OUTPUT = "first output of a 15 GB engine"


def first_output(check: Check) -> Row:
    """Process start to first output of an engine of 15 GB that was just written, so that the page cache holds it."""
    name, gigabytes = FIRST_OUTPUT, 15
    folders = [
        folder
        for folder in ("/dev/shm", tempfile.gettempdir())
        if Path(folder).is_dir() and shutil.disk_usage(folder).free > (gigabytes + 2) * 1e9
    ]
    if not folders:
        return Row("engines", name, "skipped", 0, "no folder has 17 GB free")
    program = check.program("gpu_engine")
    with tempfile.TemporaryDirectory(dir=folders[0]) as folder:
        path = f"{folder}/stack.tandem"
        status, text, wrote = check.call([program, "write", path, str(gigabytes)], 240)
        if status != 0:
            return Row("engines", name, "failed", wrote, text.strip()[-600:])
        seconds, answer = [], {}
        for _ in range(3):
            status, text, taken = check.call([program, "start", path], 90)
            if status != 0:
                return Row("engines", name, "failed", wrote, text.strip()[-600:])
            seconds.append(taken)
            answer = json.loads(text.strip().splitlines()[-1])
    values = {
        "seconds": round(statistics.median(seconds), 2),
        "all": [round(s, 2) for s in seconds],
        "phases_s": answer["phases_s"],
        "error": answer["error"],
        "folder": folders[0],
        "bar": "6 s",
    }
    return Row("engines", name, "passed" if answer["error"] < 0.05 else "failed", wrote, "", values)


def engines(check: Check) -> Iterator[Row]:
    for part, bar in (("enqueue", "20 / 60 us"), ("memory", "200 MB"), ("stream", "")):
        if not check.group_is_known("engines", part):
            yield from engine_part(check, part, bar)
    yield from products(check)
    if ("engines", FIRST_OUTPUT) not in check.known:
        yield first_output(check)
    yield from whole_models(check)


def engine_part(check: Check, part: str, bar: str) -> Iterator[Row]:
    status, text, seconds = check.call([check.program("gpu_engine"), part], 120)
    for line in text.splitlines():
        values = json.loads(line) if line.startswith("{") else {}
        if "name" not in values:
            continue
        name = values.pop("name")
        values = {key: round(v, 2) if isinstance(v, float) else v for key, v in values.items()} | (
            {} if "us" in values or not bar else {"bar": bar}
        )
        yield Row("engines", name, "passed", seconds, "", values, group=part)
    told = "" if status == 0 else text.strip()[-600:]
    yield Row("engines", part, "passed" if status == 0 else "failed", seconds, told, group=part)


def ranks(check: Check) -> Iterator[Row]:
    """All GPUs of the machine, a process each, beside PyTorch on as many."""
    if gpus() < 2:
        yield Row("ranks", "all", "skipped", 0, "this machine has one GPU")
        return
    command = [check.program("gpu_ranks_bench"), str(gpus())]
    status, text, _ = check.call([command[0], "--list"], 30)
    names = [name for name in text.splitlines() if ("ranks", name) not in check.known]
    if not names:
        return
    with Server(check, command) as ours, Server(check, [sys.executable, "bench/peers/gpu_ranks_torch.py", str(gpus())]) as peer:
        for name in names:
            yield rank_row(name, ours, peer)


def rank_row(name: str, ours: Server, peer: Server) -> Row:
    begin, alone = time.monotonic(), name.endswith(", once")
    answers = [(ours.ask(name, 200), {})] if alone else [(ours.ask(name), peer.ask(name)) for _ in range(RANK_PAIRS)]
    values = {key: value for key, value in answers[0][0].items() if key != "name"}
    mine, theirs = ([answer["us"] for answer in side if "us" in answer] for side in zip(*answers, strict=True))
    if len(mine) < len(answers):
        return Row("ranks", name, "failed", time.monotonic() - begin, str([answer for answer, _ in answers])[:1000])
    values["us"] = round(statistics.median(mine), 2)
    if theirs:
        values |= {
            "peer_us": round(statistics.median(theirs), 2),
            "ratio": round(statistics.median(theirs) / statistics.median(mine), 3),
            "peer": answers[0][1].get("ways"),
        }
    return Row(
        "ranks", name, "passed" if values.get("error", 1) < values.pop("limit", 0) else "failed", time.monotonic() - begin, "", values
    )
