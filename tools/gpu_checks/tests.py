"""Stages in which something passes or fails."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from gpu_checks.rows import ROOT, Check, Row, gpus

WORKERS = 8  # tests at a time
FOUR_RANKS = "tp=4+dp=2,tp=2+cp=2,tp=2"


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
    yield from tests(
        check, "contexts", program, workers=1, wanted=lambda name: name.startswith("GpuTrouble."), limit=150
    )  # these break GPUs and count their memory


def groups(check: Check) -> Iterator[Row]:
    """Collectives between GPUs; one test at a time, for each takes all of them."""
    yield from tests(check, "groups", check.program("gpu_group_tests"), workers=1)
    yield from tests(check, "groups", check.program("peer_test"), workers=1)
    yield from tests(
        check, "groups", check.program("attention_ranks_test"), workers=1, wanted=lambda name: name.rsplit("/", 1)[-1] == str(gpus())
    )


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
        command = [
            tool,
            "--tool",
            kind,
            "--error-exitcode",
            "9",
            check.program("kernels_test"),
            "--gtest_filter=" + name,
            "--gtest_brief=1",
        ]
        status, text, seconds = check.call(command, 90)
        verdict = (
            "passed"
            if status == 0 and "ERROR SUMMARY: 0 errors" in text or "hazards displayed (0 errors" in text and status == 0
            else "failed"
        )
        kernels = re.findall(r"(?:Read|Write) access at (\w+)", text)
        if status == 124:
            verdict, text = "skipped", "took longer than its limit"
        elif "before first instrumented API call" in text:
            verdict, text = "skipped", "it uses no GPU"
        elif verdict == "failed" and kernels and all(kernel.startswith("cudnn_") for kernel in kernels):
            verdict, text = "skipped", "hazards are told of in cuDNN's own kernels only"
        return Row("sanitizer", f"{kind} {name}", verdict, seconds, "" if verdict == "passed" else text.strip()[:1500])

    names = names_of(check, check.program("kernels_test"))
    sharing = [
        name for name in names if re.match(r"(Attention|Norm|LayerNorm|RmsNorm|Softmax|Reduce|Transpose|MatMul|CumSum|ArgMax|TopK)", name)
    ]
    jobs = [("memcheck", name) for name in names] + [(kind, name) for kind in ("racecheck", "synccheck") for name in sharing]
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(run, jobs)


def models(check: Check) -> Iterator[Row]:
    """Recorded cases, whole and over as many GPUs as there are; ranks by each way that GPUs of one host have to exchange."""
    sets = [("one", "", 6), ("tp=2+cp=2+dp=2", "", 1 if gpus() > 1 else 6)]
    if gpus() > 1:
        sets.append(("tp=2+cp=2+dp=2", "nccl", 1))
    if gpus() > 3:
        sets += [(FOUR_RANKS, "", 1), (FOUR_RANKS, "nccl", 1)]
    for meshes, backend, jobs in sets:
        yield from cases(check, meshes, backend, jobs)


def cases(check: Check, meshes: str, backend: str, jobs: int) -> Iterator[Row]:
    command = [
        sys.executable,
        "tests/models/run_cases.py",
        "--tandem",
        check.program("tandem"),
        "--device",
        "cuda",
        "--meshes",
        meshes,
        "-v",
        "--jobs",
        str(jobs),
        "--timeout",
        "60",
    ]
    before = dict(check.environment)
    check.environment |= {"TANDEM_GPU_GROUP": backend} if backend else {}
    status, text, seconds = check.call(command, 240)
    check.environment = before
    by = f" by {backend}" if backend else ""
    for line in text.splitlines():
        match = re.match(r"(passed|refused|unsupported|failed) +(\S+) (\S+)  ?(.*)", line)
        if match:
            verdict, model, mesh, why = match.groups()
            yield Row("models", f"{model} {mesh}{by}", {"refused": "skipped", "unsupported": "skipped"}.get(verdict, verdict), 0, why[:600])
    if status not in (0, 1):
        yield Row("models", f"all on {meshes}{by}", "failed", seconds, text[-800:])


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
    status, text, seconds = check.call(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files], 300
    )
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
