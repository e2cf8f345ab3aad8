#!/usr/bin/env python3
"""Runs what tools/gpu_pack.sh packed, on a machine with GPUs: what is there, tests of every kernel, recorded models, benchmarks.

    gpu_check.py [STAGE…] [--budget SECONDS] [--out DIR] [--resume FILE] [--pack build/gpu]

Stages run in their order, each with a limit of its own; one line of JSON per row goes to DIR/rows.jsonl as the row ends, and a table of at
most 100 lines is printed last. --resume FILE leaves out the rows that the same programs have passed before, as an earlier rows.jsonl says.
Exit status 1 if a row failed.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent


WORKERS = 8  # tests at a time


@dataclass
class Row:
    stage: str
    name: str
    status: str  # passed, failed, skipped
    seconds: float = 0
    text: str = ""
    values: dict = field(default_factory=dict)
    programs: str = ""  # the digest of the pack


class Check:
    def __init__(self, args: argparse.Namespace) -> None:
        self.end = time.monotonic() + args.budget
        self.pack = args.pack.resolve()
        self.manifest = json.loads((self.pack / "manifest.json").read_text())
        args.out.mkdir(parents=True, exist_ok=True)
        self.file = (args.out / "rows.jsonl").open("w")
        self.rows: list[Row] = []
        self.known: dict[tuple[str, str], Row] = {}
        if args.resume:
            for line in args.resume.read_text().splitlines():
                row = Row(**json.loads(line))
                if row.status == "passed" and row.programs == self.manifest["programs"]:
                    self.known[row.stage, row.name] = row
        self.unpacked = Path(tempfile.mkdtemp(prefix="tandem-"))
        with tarfile.open(self.pack / "pack.tar.xz") as pack:
            pack.extractall(self.unpacked, filter="data")
        self.environment = {**os.environ, "LD_LIBRARY_PATH": f"{self.unpacked / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}", "TANDEM_TEST_DEVICE": "cuda", "TANDEM_TEST_MODELS": str(ROOT / "tests/models")}

    def left(self) -> float:
        return self.end - time.monotonic()

    def add(self, row: Row) -> None:
        row.programs = self.manifest["programs"]
        self.rows.append(row)
        self.file.write(json.dumps(asdict(row)) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def call(self, command: list[str], limit: float) -> tuple[int, str, float]:
        """Exit status, output and seconds; 124 where it took longer than `limit` or the budget."""
        begin = time.monotonic()
        limit = max(1.0, min(limit, self.left()))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=self.environment, cwd=ROOT, errors="replace")
            return done.returncode, done.stdout + done.stderr, time.monotonic() - begin
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else (late.stdout or "")
            return 124, text + f"\nno end after {limit:.0f} s", time.monotonic() - begin

    def program(self, name: str) -> str:
        return str(self.unpacked / "bin" / name)


def probe(check: Check) -> Iterator[Row]:
    for name, command in [
        ("gpu", ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm", "--format=csv,noheader"]),
        ("doctor", [check.program("tandem"), "doctor"]),
        ("ceilings", [sys.executable, "bench/peers/gpu_ceilings.py"]),
    ]:
        status, text, seconds = check.call(command, 90)
        yield Row("probe", name, "passed" if status == 0 else "failed", seconds, text.strip()[-1500:])


def kernels(check: Check) -> Iterator[Row]:
    """One process per test, so that a kernel that broke its context breaks no other row."""
    yield from tests(check, "kernels", check.program("kernels_test"))


def contexts(check: Check) -> Iterator[Row]:
    program = check.program("gpu_tests")
    yield from tests(check, "contexts", program, wanted=lambda name: not name.startswith("GpuTrouble."))
    yield from tests(check, "contexts", program, workers=1, wanted=lambda name: name.startswith("GpuTrouble."), limit=150)  # these break GPUs and count their memory


def groups(check: Check) -> Iterator[Row]:
    """Collectives between GPUs; one test at a time, for each takes all of them."""
    yield from tests(check, "groups", check.program("gpu_group_tests"), workers=1)
    yield from tests(check, "groups", check.program("peer_test"), workers=1)
    yield from tests(check, "groups", check.program("attention_ranks_test"), workers=1, wanted=lambda name: name.rsplit("/", 1)[-1] == str(gpus()))


def gpus() -> int:
    """How many this machine has."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return len(re.findall(r"^GPU ", listed.stdout, re.MULTILINE))


def names_of(check: Check, program: str) -> list[str]:
    status, text, _ = check.call([program, "--gtest_list_tests"], 60)
    suite, names = "", []
    for line in text.splitlines():
        if line.startswith("  "):
            names.append(suite + line.split("#")[0].strip())
        elif line.endswith("."):
            suite = line
    return names if status == 0 else []


def tests(check: Check, stage: str, program: str, workers: int = WORKERS, wanted=lambda name: True, limit: float = 60) -> Iterator[Row]:
    def run(name: str) -> Row:
        if (stage, name) in check.known:
            return check.known[stage, name]
        status, text, seconds = check.call([program, "--gtest_filter=" + name, "--gtest_brief=1"], limit)
        counts = {kernel: int(count) for count, kernel in re.findall(r"\[ cuda \] (\d+) rows on (.*)", text)}
        verdict = "failed" if status != 0 else "skipped" if "SKIPPED" in text else "passed"
        if status < 0:
            text = f"ended by signal {-status}\n{text}"
        return Row(stage, name, verdict, seconds, "" if verdict == "passed" else text.strip()[:1200], counts)

    names = [name for name in names_of(check, program) if wanted(name)]
    if not names:
        yield Row(stage, "list", "failed", 0, "the program lists no tests")
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, names)


def sanitizer(check: Check) -> Iterator[Row]:
    """NVIDIA's compute-sanitizer over the tests of kernels: memory for all of them, then races and barriers for those that share memory."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        yield Row("sanitizer", "all", "skipped", 0, "there is no compute-sanitizer")
        return

    def run(job: tuple[str, str]) -> Row:
        kind, name = job
        if ("sanitizer", f"{kind} {name}") in check.known:
            return check.known["sanitizer", f"{kind} {name}"]
        command = [tool, "--tool", kind, "--error-exitcode", "9", check.program("kernels_test"), "--gtest_filter=" + name, "--gtest_brief=1"]
        status, text, seconds = check.call(command, 90)
        verdict = "passed" if status == 0 and "ERROR SUMMARY: 0 errors" in text or "hazards displayed (0 errors" in text and status == 0 else "failed"
        kernels = re.findall(r"(?:Read|Write) access at (\w+)", text)
        if status == 124:
            verdict, text = "skipped", "took longer than its limit"
        elif "before first instrumented API call" in text:
            verdict, text = "skipped", "it uses no GPU"
        elif verdict == "failed" and kernels and all(kernel.startswith("cudnn_") for kernel in kernels):
            verdict, text = "skipped", "hazards are told of in cuDNN's own kernels only"
        return Row("sanitizer", f"{kind} {name}", verdict, seconds, "" if verdict == "passed" else text.strip()[:1500])

    names = names_of(check, check.program("kernels_test"))
    sharing = [name for name in names if re.match(r"(Attention|Norm|LayerNorm|RmsNorm|Softmax|Reduce|Transpose|MatMul|CumSum|ArgMax)", name)]
    jobs = [("memcheck", name) for name in names] + [(kind, name) for kind in ("racecheck", "synccheck") for name in sharing]
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(run, jobs)


def models(check: Check) -> Iterator[Row]:
    for meshes in ["one", "tp=2+cp=2+dp=2"]:
        command = [sys.executable, "tests/models/run_cases.py", "--tandem", check.program("tandem"), "--device", "cuda", "--meshes", meshes, "-v", "--jobs", "6", "--timeout", "60"]
        status, text, seconds = check.call(command, 240)
        for line in text.splitlines():
            match = re.match(r"(passed|refused|unsupported|failed) +(\S+) (\S+)  ?(.*)", line)
            if match:
                verdict, model, mesh, why = match.groups()
                yield Row("models", f"{model} {mesh}", {"refused": "skipped", "unsupported": "skipped"}.get(verdict, verdict), 0, why[:600])
        if status not in (0, 1):
            yield Row("models", f"all on {meshes}", "failed", seconds, text[-800:])


def python(check: Check) -> Iterator[Row]:
    """The package's tests that need a GPU, and those that need torch; pytest must be there."""
    package = check.unpacked / "python"
    if not list(package.glob("tandem/_core*.so")):
        yield Row("python", "all", "skipped", 0, "the pack holds no Python package")
        return
    report = check.unpacked / "python.xml"
    folder = ROOT / "python/tests"
    files = [str(path) for path in [*sorted(folder.glob("gpu_*_test.py")), folder / "torch_test.py", folder / "arrays_test.py"]]
    before = dict(check.environment)
    check.environment |= {"PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"}
    del check.environment["TANDEM_TEST_DEVICE"]
    status, text, seconds = check.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files], 300)
    check.environment = before
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    for case in cases:
        ended = {child.tag: child for child in case}
        found = next((tag for tag in ("failure", "error", "skipped") if tag in ended), "")
        told = (ended[found].get("message", "") + "\n" + (ended[found].text or ""))[-1500:] if found else ""
        name = f"{case.get('classname', '').split('.')[-1]} {case.get('name')}"
        yield Row("python", name, {"": "passed", "skipped": "skipped"}.get(found, "failed"), float(case.get("time", 0)), told)
    if not cases or status not in (0, 1):
        yield Row("python", "all", "failed", seconds, end_of_process(text))


def end_of_process(text: str) -> str:
    """Of a Python process that died: where each thread was, without the modules that were loaded."""
    at = text.find("Fatal Python error")
    return text[max(0, at - 300) : at + 2500] if at >= 0 else text.strip()[-1500:]


class Server:
    """A program that answers names with lines of JSON."""

    def __init__(self, check: Check, command: list[str], environment: dict[str, str] | None = None) -> None:
        environment = environment or check.environment
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)

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


def bench(check: Check) -> Iterator[Row]:
    """Ours and the peer in turn; times are medians, `ratio` the peer's time over ours: above 1 we are faster."""
    status, text, _ = check.call([check.program("gpu_bench"), "--list"], 30)
    ours, peer = Server(check, [check.program("gpu_bench")]), Server(check, [sys.executable, "bench/peers/gpu_torch.py"])
    alone_program = check.program("gpu_cublaslt")
    library = Server(check, [alone_program]) if Path(alone_program).exists() else None
    for name in text.splitlines():
        begin, mine, theirs, alone, values = time.monotonic(), [], [], [], {}
        for i in range(PAIRS):
            answer = ours.ask(name)
            values = answer if i == 0 else values
            if "failed" in answer:
                break
            mine.append(answer["us"])
            other = peer.ask(name)
            if "us" in other:
                theirs.append(other["us"])
            else:
                values["peer"] = other["failed"]
            if library and name.startswith("MatMul"):
                alone += [answer["us"] for answer in [library.ask(name)] if "us" in answer]
        values.pop("name", None)
        if not mine:
            yield Row("bench", name, "failed", time.monotonic() - begin, values.get("failed", ""))
            continue
        scale = values["us"] / statistics.median(mine)
        values.update({key: round(values[key] * scale, 2) for key in ("gb_s", "tflop_s") if key in values}, us=round(statistics.median(mine), 2))
        if theirs:
            values.update(peer_us=round(statistics.median(theirs), 2), ratio=round(statistics.median(theirs) / statistics.median(mine), 3))
        if alone:
            values.update(library_us=round(statistics.median(alone), 2), library_ratio=round(statistics.median(alone) / statistics.median(mine), 3))
        yield Row("bench", name, "passed" if values.get("error", -1) < 0.03 else "failed", time.monotonic() - begin, "", values)
    for server in (ours, peer, *([library] if library else [])):
        server.end()


def whole_models(check: Check) -> Iterator[Row]:
    """Engines of whole models through the Python package, and torch.compile with CUDA graphs, in turn. One side at a time holds its model."""
    environment = {**check.environment, "PYTHONPATH": f"{check.unpacked / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
    status, text, _ = check.call([sys.executable, "bench/gpu_models.py", "--list"], 30)
    ours = Server(check, [sys.executable, "bench/gpu_models.py"], environment)
    peer = Server(check, [sys.executable, "bench/peers/gpu_models_torch.py"])
    for name in text.splitlines() if status == 0 else []:
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
            yield Row("engines", name, "skipped" if "refused" in values else "failed", time.monotonic() - begin, values.get("refused", values.get("failed", "")))
            continue
        values.update(us=round(statistics.median(mine), 2))
        if theirs:
            values.update(peer_us=round(statistics.median(theirs), 2), ratio=round(statistics.median(theirs) / statistics.median(mine), 3))
        yield Row("engines", name, "passed" if values.get("error", 1) < 0.05 else "failed", time.monotonic() - begin, "", values)
    for server in (ours, peer):
        server.end()


def first_output(check: Check) -> Row:
    """Process start to first output of an engine of 15 GB that was just written, so that the page cache holds it."""
    name, gigabytes = "first output of a 15 GB engine", 15
    folders = [folder for folder in ("/dev/shm", tempfile.gettempdir()) if Path(folder).is_dir() and shutil.disk_usage(folder).free > (gigabytes + 2) * 1e9]
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
    values = {"seconds": round(statistics.median(seconds), 2), "all": [round(s, 2) for s in seconds], "phases_s": answer["phases_s"], "error": answer["error"], "folder": folders[0], "bar": "6 s"}
    return Row("engines", name, "passed" if answer["error"] < 0.05 else "failed", wrote, "", values)


def engines(check: Check) -> Iterator[Row]:
    for part, bar in (("enqueue", "20 / 60 us"), ("memory", "200 MB")):
        status, text, seconds = check.call([check.program("gpu_engine"), part], 120)
        for line in text.splitlines():
            values = json.loads(line) if line.startswith("{") else {}
            if "name" in values:
                yield Row("engines", values.pop("name"), "passed", seconds, "", {key: round(v, 2) if isinstance(v, float) else v for key, v in values.items()} | {"bar": bar})
        if status != 0:
            yield Row("engines", part, "failed", seconds, text.strip()[-600:])
    yield first_output(check)
    yield from whole_models(check)


def ranks(check: Check) -> Iterator[Row]:
    """All GPUs of the machine, a process each, beside PyTorch on as many."""
    if gpus() < 2:
        yield Row("ranks", "all", "skipped", 0, "this machine has one GPU")
        return
    command = [check.program("gpu_ranks_bench"), str(gpus())]
    status, text, _ = check.call([command[0], "--list"], 30)
    ours, peer = Server(check, command), Server(check, [sys.executable, "bench/peers/gpu_ranks_torch.py", str(gpus())])
    for name in text.splitlines():
        begin, alone = time.monotonic(), name.endswith(", once")
        answers = [(ours.ask(name, 200), {})] if alone else [(ours.ask(name), peer.ask(name)) for _ in range(RANK_PAIRS)]
        values = {key: value for key, value in answers[0][0].items() if key != "name"}
        mine, theirs = ([answer["us"] for answer in side if "us" in answer] for side in zip(*answers, strict=True))
        if len(mine) < len(answers):
            yield Row("ranks", name, "failed", time.monotonic() - begin, str([answer for answer, _ in answers])[:1000])
            continue
        values["us"] = round(statistics.median(mine), 2)
        if theirs:
            values |= {"peer_us": round(statistics.median(theirs), 2), "ratio": round(statistics.median(theirs) / statistics.median(mine), 3), "peer": answers[0][1].get("ways")}
        yield Row("ranks", name, "passed" if values.get("error", 1) < values.pop("limit", 0) else "failed", time.monotonic() - begin, "", values)
    for server in (ours, peer):
        server.end()


STAGES = {"probe": probe, "kernels": kernels, "contexts": contexts, "groups": groups, "models": models, "python": python, "bench": bench, "engines": engines, "ranks": ranks, "sanitizer": sanitizer}


def table(rows: list[Row], limit: int = 100) -> str:
    lines = []
    for stage in STAGES:
        of = [row for row in rows if row.stage == stage]
        if of:
            lines.append(f"{stage}: " + ", ".join(f"{sum(r.status == s for r in of)} {s}" for s in ("passed", "failed", "skipped")))
    total: dict[str, int] = {}
    for row in rows:
        if row.stage == "kernels":
            for kernel, count in row.values.items():
                total[kernel] = total.get(kernel, 0) + count
    lines += [f"  {count:6} rows on {kernel}" for kernel, count in sorted(total.items())]
    for row in rows:
        if row.stage in ("probe", "bench", "engines", "ranks") or row.status == "failed":
            lines.append(f"{row.status} {row.stage} {row.name} {row.values or ''} {row.text[:400]}")
    return "\n".join("\n".join(lines).splitlines()[:limit])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE", help=", ".join(STAGES) + " (default: all)")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu_check")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--pack", type=Path, default=ROOT / "build/gpu")
    args = parser.parse_args()
    check = Check(args)
    for stage in args.stages or STAGES:
        for row in STAGES[stage](check):
            check.add(row)
            if check.left() <= 0:
                break
        if check.left() <= 0:
            check.add(Row(stage, "budget", "failed", 0, "the time was used up here; --resume goes on"))
            break
    print(table(check.rows))
    return 1 if any(row.status == "failed" for row in check.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
