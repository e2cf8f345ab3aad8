"""Stages in which something passes or fails."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from gpu_checks.rows import ROOT, Check, Row, gpus

WORKERS = 8  # tests at a time
TWO_RANKS = "tp=2+cp=2+dp=2"
FOUR_RANKS = "tp=4+dp=2,tp=2+cp=2,tp=2"


def probe(check: Check) -> Iterator[Row]:
    """Anew in each call, whose rows are judged beside it."""
    for name, command in [
        ("gpu", ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm,uuid", "--format=csv,noheader"]),
        ("doctor", [check.program("tandem"), "doctor"]),
        ("ceilings", [sys.executable, "bench/peers/gpu_ceilings.py"]),
    ]:
        status, text, seconds = check.call(command, 90)
        if name == "gpu" and status == 0:  # of those that the machine has, the ones that this call can use
            text = "\n".join(line for line in text.splitlines() if line.rpartition(", ")[2] in check.uuid.split(","))
        yield Row("probe", name, "passed" if status == 0 else "failed", seconds, text.strip()[-1500:])


def kernels(check: Check) -> Iterator[Row]:
    """One process per test, so that a kernel that broke its context breaks no other row. A second time with operands and results that lie
    one element past an aligned address."""
    rows = []
    for row in tests(check, "kernels", check.program("kernels_test")):
        rows.append(row)
        yield row
    yield from tests(check, "kernels", check.program("kernels_test"), unaligned=True)
    yield through_host("kernels", rows, refused_list(), MOST_THROUGH_HOST)


MOST_THROUGH_HOST = 0.03  # of the rows of kernels


def refused_list() -> str:
    return (ROOT / "tests/refused.txt").read_text(encoding="utf-8")


def through_host(stage: str, rows: list[Row], refused: str, most: float = 1) -> Row:
    """Each row of the tests that no kernel of a GPU takes must have its line in tests/refused.txt; `most`: the part of all that may."""
    listed = [line.split(maxsplit=3)[1:] for line in refused.splitlines() if line.startswith("host ")]
    total, host, unlisted = sum(sum(row.values.values()) for row in rows), 0, set()
    for count, op, dtype, why in re.findall(
        r"^(\d+) through the host: (\w+) (\w+): (.*)$", "\n".join(row.text for row in rows), re.MULTILINE
    ):
        host += int(count)
        if not any((op, dtype) == (line[0], line[1]) and line[2] in why for line in listed):
            unlisted.add(f"{op} {dtype}: {why}")
    text = f"{host} of {total} rows went through the host" + (f", at most {most:.0%} may" if most < 1 else "")
    if unlisted:
        text += "; not in refused.txt: " + "; ".join(sorted(unlisted))
    return Row(stage, "rows through the host", "failed" if unlisted or host > most * total else "passed", 0, text)


ALONE = ("GpuTrouble.", "WeightBudgetOnGpu.MemoryStays", "WeightBudgetOnGpu.AnEngineLarger")  # they break GPUs, fill or count their memory


def contexts(check: Check) -> Iterator[Row]:
    program = check.program("gpu_tests")
    yield from tests(check, "contexts", program, wanted=lambda name: not name.startswith((*ALONE, "GpuSoak.")))
    yield from tests(check, "contexts", program, workers=1, wanted=lambda name: name.startswith(ALONE), limit=150)


def soak(check: Check) -> Iterator[Row]:
    """Thousands of replays, with everything compared; several GPUs have theirs among the tests of groups."""
    yield from tests(check, "soak", check.program("gpu_tests"), workers=1, wanted=lambda name: name.startswith("GpuSoak."), limit=150)


# Tests of groups that stay alone: they measure time or memory, replay for long, or kill, stop, abort and fill.
GROUPS_ALONE = re.compile(
    r"GpuFailures|Trouble|LentCommunicators|SeveralHosts|RegisteredMemory\.IsGivenBack|CallsInAnotherOrder"
    r"|Peers\.(TenThousand|TwoGraphs|Processes|AProcess|ARankThatNeverCalls|AnAbort)"
)
SHARING = (3, 4, 8)  # ranks of peer_test, threads that share GPUs, so that kernels for so many run where there are fewer
# A process of its own for a rank shares a GPU in time slices only, which takes too long; what knows no GPU, or shows in two ranks too.
NOT_SHARING = re.compile(r"PeerChild|Process|TwoRanksOnOneGpu|RowsThatItDoesNotTake|ARankInTrouble|AGroupLoads")
SHARING_ONCE = re.compile(r"TenThousand|NotANumber|ARankThatNeverCalls|AnAbort")  # by four ranks only


def groups(check: Check) -> Iterator[Row]:
    """Collectives between GPUs; some tests at a time, for while one compares on the host another may use the GPUs."""
    program, count = check.program("gpu_group_tests"), gpus()
    four = [name for name in names_of(check, program) if re.search(r"(?<!host_processes)_4$", name)] if count < 4 else []
    if four:
        yield Row("groups", "on 4 GPUs", "skipped", 0, f"{len(four)} tests need 4 GPUs, this machine has {count}")
    alone = GROUPS_ALONE.search
    yield from tests(check, "groups", program, check.jobs, wanted=lambda name: name not in four, alone=alone, limit=120)
    program = check.program("peer_test")
    yield from tests(check, "groups", program, check.jobs, alone=alone, limit=120)
    for ranks in [ranks for ranks in SHARING if count > 1 and ranks != count]:
        left_out = NOT_SHARING if ranks == 4 else re.compile(f"{NOT_SHARING.pattern}|{SHARING_ONCE.pattern}")
        names = [name for name in names_of(check, program) if not left_out.search(name)]
        # Streams that share a connection to the GPU wait for one another, which ranks that wait for each other must not.
        more = {"TANDEM_TEST_RANKS": str(ranks), "CUDA_DEVICE_MAX_CONNECTIONS": "32"}
        yield from in_one_process(check, "groups", program, names, f" by {ranks} ranks", more, limit=120)


def in_one_process(check: Check, stage: str, program: str, names: list[str], way: str, more: dict[str, str], limit: float) -> Iterator[Row]:
    """A row for each test. Processes that share a GPU take turns on it, and kernels that wait use up theirs; so all tests that wait for
    ranks on one GPU are one process, and nothing runs beside it. Where one fails the others go on in a new process."""
    left = [name for name in names if (stage, name + way) not in check.known]
    while left:
        command = [program, "--gtest_filter=" + ":".join(left), "--gtest_fail_fast"]
        status, text, seconds = check.call(command, limit, more)
        begun = []
        for part in text.split("[ RUN      ] ")[1:]:
            name = part.split("\n", 1)[0].strip()
            begun.append(name)
            ended = re.search(r"\[ +(OK|FAILED|SKIPPED) +\] " + re.escape(name) + r"\b.*\((\d+) ms\)", part)
            verdict = {"OK": "passed", "SKIPPED": "skipped"}.get(ended[1], "failed") if ended else "failed"
            told = "" if verdict == "passed" else f"the process ended with {status}\n{part.strip()[:1200]}"
            yield Row(stage, name + way, verdict, int(ended[2]) / 1e3 if ended else seconds, told, counts_of(part)[0])
        if not begun:
            yield from (Row(stage, name + way, "failed", seconds, text.strip()[-1200:]) for name in left)
            return
        left = [name for name in left if name not in begun]


def rank_rows(check: Check) -> Iterator[Row]:
    """Rows of the CPU's ranks on a GPU for each rank: by what carries them, ranks as threads and as processes."""
    program, count, rows = check.program("attention_ranks_test"), gpus(), []
    for ranks in (2, 4):
        wanted = lambda name, ranks=ranks: name.rsplit("/", 1)[-1] == str(ranks)  # noqa: E731
        if count < ranks:
            needing = sum(wanted(name) for name in names_of(check, program))
            yield Row("rank_rows", f"on {ranks} GPUs", "skipped", 0, f"{4 * needing} tests need {ranks} GPUs, this machine has {count}")
            continue
        for backend in ("peer", "nccl"):
            for processes in (0, ranks):
                for row in tests(check, "rank_rows", program, check.jobs, wanted, limit=150, backend=backend, processes=processes):
                    rows.append(row)
                    yield row
    if rows:
        yield through_host("rank_rows", rows, refused_list())


def names_of(check: Check, program: str) -> list[str]:
    status, text, _ = check.call([program, "--gtest_list_tests"], 60)
    suite, names = "", []
    for line in text.splitlines():
        if line.startswith("  "):
            names.append(suite + line.split("#")[0].strip())
        elif line.endswith("."):
            suite = line
    return names if status == 0 else []


def counts_of(text: str) -> tuple[dict[str, int], str]:
    """How many rows ran on which kernel, and a line for each kind of row that went through the host, with the reason."""
    counts: dict[str, int] = {}
    host = []
    for count, kernel, op, why in re.findall(r"\[ cuda \] (\d+) rows on (\w+)(?: \((\w+ \w+)\): (.*))?", text):
        name = f"{kernel} ({op})" if op else kernel
        counts[name] = counts.get(name, 0) + int(count)
        host += [f"{count} through the host: {op}: {why}"] if op else []
    return counts, "\n".join(host)


def tests(
    check: Check,
    stage: str,
    program: str,
    workers: int = WORKERS,
    wanted: Callable[[str], object] = lambda name: True,
    alone: Callable[[str], object] = lambda name: False,
    limit: float = 60,
    backend: str = "",
    processes: int = 0,
    unaligned: bool = False,
) -> Iterator[Row]:
    """A row for each test. `alone`: one at a time, when the others have ended. `backend`: what carries collectives. `processes`: so many
    run the test together, each is a rank. `unaligned` ones are not counted by kernel: they are the same rows again."""
    way, more = "", {}
    if backend:
        way, more = f" by {backend}, {'processes' if processes else 'threads'}", {"TANDEM_GPU_GROUP": backend}
    elif unaligned:
        way, more = " unaligned", {"TANDEM_TEST_UNALIGNED": "1"}

    def run(test: str) -> Row:
        name = test + way
        if (stage, name) in check.known:
            return check.known[stage, name]
        command = [program, "--gtest_filter=" + test, "--gtest_brief=1"]
        status, text, seconds = check.call_ranks(command, limit, more, processes) if processes else check.call(command, limit, more)
        counts, host = ({}, "") if unaligned else counts_of(text)
        verdict = "failed" if status != 0 else "skipped" if "SKIPPED" in text else "passed"
        if status < 0:
            text = f"ended by signal {-status}\n{text}"
        return Row(stage, name, verdict, seconds, host if verdict == "passed" else text.strip()[:1200], counts)

    names = [name for name in names_of(check, program) if wanted(name)]
    if not names:
        yield Row(stage, "list", "failed", 0, "the program lists no tests")
    together = [name for name in names if not alone(name)]
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, together)
    yield from map(run, [name for name in names if alone(name)])


def models(check: Check) -> Iterator[Row]:
    """Recorded cases, whole and over as many GPUs as there are; ranks by each way that GPUs of one host have to exchange. One kind of
    models at a time, so that --resume goes on between them."""
    sys.path.append(str(ROOT / "tests/models"))
    from run_cases import GROUPS, SHARDED

    # Ranks that share a GPU go through the host: with GPUs enough, those of files that other tools sharded for more.
    sets = [("one", "", "processes", 6), (TWO_RANKS, "", "processes", check.jobs if gpus() > 1 else 6)]
    for ranks, meshes in ((2, TWO_RANKS), (4, FOUR_RANKS)):
        ways = [(backend, isolate) for isolate in ("processes", "threads") for backend in ("peer", "nccl")]
        if gpus() >= ranks:
            sets += [(meshes, backend, isolate, check.jobs) for backend, isolate in ways]
        else:
            yield Row("models", f"all on {meshes}", "skipped", 0, f"{len(ways)} runs need {ranks} GPUs, this machine has {gpus()}")
    for meshes, backend, isolate, jobs in sets:
        for kind in GROUPS:
            done_elsewhere = kind in SHARDED if meshes == "one" else not backend and gpus() > 1 and kind not in SHARDED
            if not done_elsewhere:
                yield from cases(check, kind, meshes, backend, isolate, jobs)


def cases(check: Check, kind: str, meshes: str, backend: str, isolate: str, jobs: int) -> Iterator[Row]:
    command = [
        sys.executable,
        "tests/models/run_cases.py",
        kind,
        "--tandem",
        check.program("tandem"),
        "--device",
        "cuda",
        "--meshes",
        meshes,
        "--isolate",
        isolate,
        *(["--most-ranks", str(gpus())] if backend else []),
        "-v",
        "--jobs",
        str(jobs),
        "--timeout",
        "60",
    ]
    by = f" by {backend}, {isolate}" if backend else ""
    group = f"{kind} on {meshes}{by}"
    if check.group_is_known("models", group):
        return
    status, text, seconds = check.call(command, 240, {"TANDEM_GPU_GROUP": backend} if backend else {})
    for line in text.splitlines():
        match = re.match(r"(passed|refused|unsupported|skipped|failed) +(\S+) (\S+)  ?(.*)", line)
        if match:
            verdict, model, mesh, why = match.groups()
            verdict = {"refused": "skipped", "unsupported": "skipped"}.get(verdict, verdict)
            yield Row("models", f"{model} {mesh}{by}", verdict, 0, why[:600], group=group)
    if status != 1:
        yield Row("models", group, "passed" if status == 0 else "failed", seconds, "" if status == 0 else text[-800:], group=group)


def python(check: Check) -> Iterator[Row]:
    """The package's tests that need a GPU, and those that need torch; pytest must be there."""
    package = check.unpacked / "python"
    if not list(package.glob("tandem/_core*.so")):
        yield Row("python", "all", "skipped", 0, "the pack holds no Python package")
        return
    folder = ROOT / "python/tests"
    for file in [*sorted(folder.glob("gpu_*_test.py")), folder / "torch_test.py", folder / "arrays_test.py"]:
        if not check.group_is_known("python", file.stem):
            yield from python_file(check, package, file)


def python_file(check: Check, package: Path, file: Path) -> Iterator[Row]:
    report = check.unpacked / f"{file.stem}.xml"
    before = dict(check.environment)
    check.environment |= {"PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"}
    del check.environment["TANDEM_TEST_DEVICE"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(file)]
    status, text, seconds = check.call(command, 300)
    check.environment = before
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else []:
        ended = {child.tag: child for child in case}
        found = next((tag for tag in ("failure", "error", "skipped") if tag in ended), "")
        told = (ended[found].get("message", "") + "\n" + (ended[found].text or ""))[-1500:] if found else ""
        verdict = {"": "passed", "skipped": "skipped"}.get(found, "failed")
        yield Row("python", f"{file.stem} {case.get('name')}", verdict, float(case.get("time", 0)), told, group=file.stem)
    if status != 1 or not report.exists():
        told = "" if status == 0 else end_of_process(text)
        yield Row("python", file.stem, "passed" if status == 0 else "failed", seconds, told, group=file.stem)


def end_of_process(text: str) -> str:
    """Of a Python process that died: where each thread was, without the modules that were loaded."""
    at = text.find("Fatal Python error")
    return text[max(0, at - 300) : at + 2500] if at >= 0 else text.strip()[-1500:]
