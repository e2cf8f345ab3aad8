"""tools/gpu_check.py and tools/gpu_results.py with a pack whose programs are scripts: no GPU is needed."""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
from argparse import Namespace
from pathlib import Path
from unittest import mock

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import gpu_check  # noqa: E402
import gpu_results  # noqa: E402
from gpu_checks import bars, sanitizer, several, timings  # noqa: E402
from gpu_checks.ceilings import ceilings_of  # noqa: E402
from gpu_checks.rows import Check, Row  # noqa: E402
from gpu_checks.tests import GROUPS_ALONE, MOST_THROUGH_HOST, counts_of, through_host  # noqa: E402

# Lists three tests; each says which rows it ran, and leaves its name in a log. Bad fails while there is a file `bad`, Good there where
# memory is not aligned.
PROGRAM = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'Suite.\\n  Good\\n  Host\\n  Bad\\n'; exit 0;;
esac
name=${1#--gtest_filter=Suite.}
echo "$name$TANDEM_TEST_UNALIGNED" >> @LOG@
case "$name" in
  Good) [ -z "$TANDEM_TEST_UNALIGNED" ] || [ ! -e @BAD@ ] || exit 1
    echo '[ cuda ] 99 rows on cuda_matmul'; echo '[ cuda ] 8 rows on cuda_reduce';;
  Host) echo '[ cuda ] 1 rows on cuda_host (Reduce i32): it takes no roots or logarithms of integers; and (much) more';;
  Bad) [ ! -e @BAD@ ] || exit 1; echo '[ cuda ] 2 rows on cuda_matmul';;
esac
"""


# Tests of ranks: each process says which it is and what carries collectives.
RANKS = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'World/Ranks.\\n  Cell/2\\n  Cell/4\\n'; exit 0;;
esac
echo "$TANDEM_GPU_GROUP:${TANDEM_TEST_RANKS_AS:-threads}:$RANK:$WORLD_SIZE" >> @LOG@
echo '[ cuda ] 5 rows on cuda_attention_ring'
echo "[ cuda ] 2 rows on cuda_host (Attention f32): $(cat @WHY@)"
[ ! -e @BAD@ ] || [ "$RANK" != 1 ] || exit 3
"""
# Tests of groups: each says what it was told, and how many others ran when it began and when it ended.
GROUPS = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'Peers.\n  Quick\n  Quick2\n  Quick3\n  TenThousandReplays\n  AProcessThatIsKilledIsNamed\n'; exit 0;;
esac
name=${1#--gtest_filter=Peers.}
mkdir -p @RUNNING@; touch @RUNNING@/$$; before=$(ls @RUNNING@ | wc -l)
sleep 0.3
after=$(ls @RUNNING@ | wc -l); rm @RUNNING@/$$
how=together
[ $before != 1 ] || [ $after != 1 ] || how=alone
for one in $(echo "$name" | tr : ' '); do
  one=${one#Peers.}
  echo "$one:${TANDEM_TEST_RANKS:-all}:${CUDA_DEVICE_MAX_CONNECTIONS:-8}:$how" >> @LOG@
  echo "[ RUN      ] Peers.$one"
  echo '[ cuda ] 5 rows on peer'
  [ ! -e @BAD@ ] || [ $one != Quick2 ] || exit 3
  echo "[       OK ] Peers.$one (20 ms)"
done
"""
SUPERVISION = """#!/bin/sh
echo "$1 $2" >> @LOG@
echo '{"backend": "peer", "refused": "no way"}'
echo '{"name": "supervision 8 KB by nccl", "ranks": 2, "us": 8.1, "without_us": 8.0, "cost": 1.0125}'
[ ! -e @BAD@ ] || exit 1
"""
LISTED_WHY = "lengths are counted over the whole sequence; it is for split='qkv'"
TWO_GPUS = """#!/bin/sh
case "$1" in
  -L) printf 'GPU 0: one (UUID: GPU-1a)\\nGPU 1: another (UUID: GPU-2b)\\n';;
  *) printf 'one, 580.1, 345 MHz, GPU-1a\\nanother, 580.1, 345 MHz, GPU-2b\\n';;
esac
"""


class Case(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.folder = Path(held.name)
        self.log, self.bad, self.out = self.folder / "log", self.folder / "bad", self.folder / "out"
        self.why = self.folder / "why"
        self.why.write_text(LISTED_WHY)
        self.pack("programs of the first pack")

    def pack(self, programs: str, dirty: bool = False) -> None:
        binary = self.folder / "bin"
        binary.mkdir(exist_ok=True)
        places = {"LOG": self.log, "BAD": self.bad, "WHY": self.why, "RUNNING": self.folder / "running"}
        scripts = {
            "kernels_test": PROGRAM,
            "attention_ranks_test": RANKS,
            "peer_test": GROUPS,
            "gpu_group_tests": GROUPS.replace("Peers", "GroupTrouble"),
            "gpu_groups_bench": SUPERVISION,
        }
        for name, text in scripts.items():
            program = binary / name
            for word, place in places.items():
                text = text.replace(f"@{word}@", str(place))
            program.write_text(text)
            program.chmod(0o755)
        with tarfile.open(self.folder / "pack.tar.xz", "w:xz") as pack:
            pack.add(binary, "bin")
        manifest = {"commit": "abc1234", "dirty": dirty, "programs": programs}
        (self.folder / "manifest.json").write_text(json.dumps(manifest))

    def check(self, *words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(TOOLS / "gpu_check.py"), *words, "--pack", str(self.folder), "--out", str(self.out)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def rows(self) -> dict[str, str]:
        """Status by name; no row is there twice."""
        rows = [json.loads(line) for line in (self.out / "rows.jsonl").read_text().splitlines()]
        self.assertEqual(len(rows), len({(row["stage"], row["name"]) for row in rows}))
        return {row["name"]: row["status"] for row in rows}

    def ran(self) -> list[str]:
        names = sorted(self.log.read_text().split()) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return names


class Runs(Case):
    def test_a_row_for_each_test_and_a_table(self) -> None:
        done = self.check("kernels", "--budget", "50")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        names = [f"Suite.{name}{how}" for name in ("Good", "Host", "Bad") for how in ("", " unaligned")]
        self.assertEqual(self.rows(), dict.fromkeys([*names, "rows through the host"], "passed"))
        for words in ("kernels: 7 passed, 0 failed, 0 skipped", "101 rows on cuda_matmul", "1 rows on cuda_host (Reduce i32)"):
            self.assertIn(words, done.stdout)

    def test_resume_runs_what_has_not_passed_and_keeps_the_rest(self) -> None:
        self.bad.touch()
        done = self.check("kernels")
        self.assertEqual(done.returncode, 1)
        failed = ["Suite.Bad", "Suite.Bad unaligned", "Suite.Good unaligned"]
        self.assertEqual(sorted(name for name, status in self.rows().items() if status == "failed"), failed)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0], "kernels: 4 passed, 3 failed, 0 skipped")
        self.assertEqual(sorted(line.split(" ", 2)[2].strip() for line in lines[1:4]), failed)
        self.assertEqual(self.ran(), ["Bad", "Bad1", "Good", "Good1", "Host", "Host1"])
        self.bad.unlink()
        self.assertEqual(self.check("kernels", "--resume").returncode, 0)  # of the file that is written anew
        self.assertEqual(self.ran(), ["Bad", "Bad1", "Good1"])
        self.assertEqual(set(self.rows().values()), {"passed"})
        self.assertEqual(len(self.rows()), 7)
        self.check("kernels", "--resume", str(self.out / "rows.jsonl"))
        self.assertEqual(self.ran(), [])
        self.assertEqual(len(self.rows()), 7)

    def test_resume_takes_nothing_of_other_programs(self) -> None:
        self.check("kernels")
        self.ran()
        self.pack("programs of the second pack")
        self.assertEqual(self.check("kernels", "--resume").returncode, 0)
        self.assertEqual(self.ran(), ["Bad", "Bad1", "Good", "Good1", "Host", "Host1"])

    def test_stages_that_are_not_asked_for_keep_their_rows(self) -> None:
        self.check("kernels")
        self.check("soak", "--resume")  # the pack has no such program
        rows = self.rows()
        self.assertEqual((rows["Suite.Good"], rows["list"]), ("passed", "failed"))


class Ranks(Case):
    def check_on_two(self, *words: str) -> subprocess.CompletedProcess:
        tool = self.folder / "tools" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(TWO_GPUS)
        tool.chmod(0o755)
        before = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", before)
        os.environ["PATH"] = f"{tool.parent}:{before}"
        return self.check(*words)

    def test_each_way_is_a_row_and_what_needs_more_gpus_is_counted(self) -> None:
        self.assertEqual(self.check_on_two("rank_rows").returncode, 0)
        self.assertEqual(
            self.rows(),
            {f"World/Ranks.Cell/2 by {backend}, {how}": "passed" for backend in ("peer", "nccl") for how in ("threads", "processes")}
            | {"on 4 GPUs": "skipped", "rows through the host": "passed"},
        )
        ranks = [f"{backend}:{how}" for backend in ("nccl", "peer") for how in ("processes:0:2", "processes:1:2", "threads::")]
        self.assertEqual(self.ran(), ranks)
        self.assertEqual(self.check_on_two("rank_rows", "--resume").returncode, 0)
        self.assertEqual(self.ran(), [])

    def test_rows_say_which_gpus_they_had(self) -> None:
        def told(visible: str) -> set[tuple[str, str]]:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
            self.check_on_two("rank_rows")
            return {(row["gpu"], row["uuid"]) for row in map(json.loads, (self.out / "rows.jsonl").read_text().splitlines())}

        self.addCleanup(os.environ.pop, "CUDA_VISIBLE_DEVICES")
        self.assertEqual(told("0,1"), {("another and one", "GPU-1a,GPU-2b")})
        self.assertEqual(told("1"), {("another", "GPU-2b")})
        self.assertEqual(self.rows(), {"on 2 GPUs": "skipped", "on 4 GPUs": "skipped"})
        self.assertEqual(told("GPU-2,0"), {("another and one", "GPU-2b,GPU-1a")})
        self.assertEqual(told("1,7,0"), {("another", "GPU-2b")})  # as CUDA takes it
        self.check_on_two("probe")
        rows = [json.loads(line) for line in (self.out / "rows.jsonl").read_text().splitlines()]
        self.assertEqual(rows[0]["text"], "another, 580.1, 345 MHz, GPU-2b")

    def test_one_rank_that_fails_fails_the_row(self) -> None:
        self.bad.touch()
        self.assertEqual(self.check_on_two("rank_rows").returncode, 1)
        rows = self.rows()
        self.assertEqual(rows["World/Ranks.Cell/2 by peer, processes"], "failed")
        self.assertEqual(rows["World/Ranks.Cell/2 by peer, threads"], "passed")

    def test_rows_of_ranks_that_go_through_the_host_must_be_listed(self) -> None:
        self.why.write_text("it is too long")
        self.assertEqual(self.check_on_two("rank_rows").returncode, 1)
        rows = self.rows()
        self.assertEqual([name for name, status in rows.items() if status == "failed"], ["rows through the host"])

    def test_groups_run_some_at_a_time_and_trouble_alone_and_more_ranks_than_gpus(self) -> None:
        self.assertEqual(self.check_on_two("groups", "--jobs", "3").returncode, 0)
        ran = [line.split(":") for line in self.ran()]
        alone = ("AProcessThatIsKilledIsNamed", "TenThousandReplays")
        self.assertFalse([line for line in ran if line[0] in alone and line[3] == "together"])
        self.assertEqual(sum(line[3] == "together" for line in ran), 3)
        self.assertEqual({(count, connections) for _, count, connections, _ in ran}, {("all", "8"), ("3", "32"), ("4", "32"), ("8", "32")})
        for name, counts in ((alone[0], ["all"]), (alone[1], ["4", "all"]), ("Quick", ["3", "4", "8", "all"])):
            self.assertEqual(sorted({line[1] for line in ran if line[0] == name}), counts)
        self.assertEqual(self.rows()["Peers.Quick by 8 ranks"], "passed")
        self.assertFalse([line for line in ran if line[1] != "all" and line[3] == "together"])

    def test_ranks_that_share_gpus_are_one_process_and_go_on_behind_one_that_breaks_it(self) -> None:
        self.bad.touch()
        self.assertEqual(self.check_on_two("groups").returncode, 1)
        rows = {name: status for name, status in self.rows().items() if name.endswith("by 3 ranks")}
        wanted = {"Quick": "passed", "Quick2": "failed", "Quick3": "passed"}
        self.assertEqual(rows, {f"Peers.{name} by 3 ranks": status for name, status in wanted.items()})

    def test_what_stays_alone(self) -> None:
        alone = (
            "By/GpuFailures.AKilledRankIsNamed/peer",
            "GroupTrouble.NoMemoryOnOneRankEndsTheOther",
            "Peers.TenThousandReplaysInProcesses",
        )
        together = ("Peer/GpuGroups.PartsOfTheRanks/peer_processes_2", "By/RegisteredMemory.GivesTheSameBits/threads", "PeerNorm.ManyRows")
        for names, wanted in ((alone, True), (together, False)):
            self.assertEqual([bool(GROUPS_ALONE.search(name)) for name in names], [wanted] * 3)

    def test_what_supervision_costs_is_a_group_of_rows(self) -> None:
        self.bad.touch()
        self.assertEqual(self.check_on_two("supervision").returncode, 1)
        self.bad.unlink()
        self.assertEqual(self.check_on_two("supervision", "--resume").returncode, 0)
        self.assertEqual(self.ran(), ["2", "2", "supervision", "supervision"])
        self.assertEqual(self.rows(), {"by peer": "skipped", "supervision 8 KB by nccl": "passed", "all": "passed"})
        self.check_on_two("supervision", "--resume")
        self.assertEqual(self.ran(), [])


class Stages(Case):
    def stage(self, check: Check, work, seconds: float) -> None:
        stages, gpu_check.STAGES = gpu_check.STAGES, {"slow": (work, seconds)}
        self.addCleanup(setattr, gpu_check, "STAGES", stages)
        gpu_check.run_stage(check, "slow")

    def new_check(self, budget: float) -> Check:
        return self.opened(Namespace(budget=budget, pack=self.folder, out=self.out, resume=None, jobs=2))

    def opened(self, arguments: Namespace) -> Check:
        check = Check(arguments)
        self.addCleanup(check.file.close)
        return check

    def test_each_has_a_limit_and_is_ended_there(self) -> None:
        ended = []

        def slow(check: Check):
            try:
                for i in range(1000):
                    time.sleep(0.05)
                    yield Row("slow", f"row {i}", "passed")
            finally:
                ended.append(True)

        check = self.new_check(60)
        self.stage(check, slow, 0.2)
        self.assertEqual((check.rows[-1].name, check.rows[-1].status, ended), ("limit", "failed", [True]))
        self.assertLess(len(check.rows), 10)
        self.assertFalse(check.is_over())
        check = self.new_check(0.2)
        self.stage(check, slow, 60)
        self.assertEqual(check.rows[-1].name, "budget")
        self.assertTrue(check.is_over())

    def test_groups_of_rows_count_once_they_are_whole(self) -> None:
        check = self.new_check(60)
        check.add(Row("models", "a one", "skipped", group="all on one"))
        check.add(Row("models", "b two", "passed", group="all on two"))
        check.add(Row("models", "all on one", "passed", group="all on one"))
        again = self.opened(Namespace(budget=60, pack=self.folder, out=self.folder / "again", resume=self.out / "rows.jsonl", jobs=2))
        self.assertTrue(again.group_is_known("models", "all on one"))
        self.assertFalse(again.group_is_known("models", "all on two"))
        self.assertEqual([row.name for row in again.rows], ["a one", "b two", "all on one"])
        self.assertIn("models: 1 passed, 0 failed, 1 skipped", gpu_check.table(again.rows))

    def test_each_call_has_rows_of_probe_of_its_own(self) -> None:
        self.new_check(60).add(Row("probe", "ceilings", "passed", 0, "first"))
        again = self.opened(Namespace(budget=60, pack=self.folder, out=self.folder / "again", resume=self.out / "rows.jsonl", jobs=2))
        again.add(Row("probe", "ceilings", "passed", 0, "second"))
        self.assertEqual([row.text for row in again.rows], ["first", "second"])

    def test_the_table_has_at_most_a_hundred_lines(self) -> None:
        rows = [Row("kernels", f"row {i}", "failed", 0, "why\n" * 9) for i in range(500)]
        lines = gpu_check.table(rows).splitlines()
        self.assertEqual((len(lines), lines[-1]), (100, "and 402 more that failed"))

    def test_what_failed_comes_before_what_passed(self) -> None:
        rows = [Row("bench", f"row {i}", "passed") for i in range(500)] + [Row("soak", "long", "failed", 0, "why\nand how")]
        lines = gpu_check.table(rows).splitlines()
        self.assertEqual(lines[:2], ["soak: 0 passed, 1 failed, 0 skipped", "bench: 500 passed, 0 failed, 0 skipped"])
        self.assertIn("failed soak long why and how", lines[:4])


class ThroughTheHost(unittest.TestCase):
    LISTED = "# a comment\nmlp cp=2 nothing\nhost Reduce i32 no roots\n"

    def row(self, text: str) -> Row:
        counts, told = counts_of(text)
        return Row("kernels", "row", "passed", 0, told, counts)

    def test_only_what_is_listed_with_its_reason(self) -> None:
        many = "[ cuda ] 1000 rows on cuda_matmul\n"
        good = self.row(many + "[ cuda ] 3 rows on cuda_host (Reduce i32): it takes no roots (yet)\n")
        self.assertEqual(good.values, {"cuda_matmul": 1000, "cuda_host (Reduce i32)": 3})
        verdict = through_host("kernels", [good, good], self.LISTED, MOST_THROUGH_HOST)
        self.assertEqual((verdict.status, verdict.text), ("passed", "6 of 2006 rows went through the host, at most 3% may"))
        for line in (
            "cuda_host (Reduce i32): it is too long",
            "cuda_host (Reduce i64): it takes no roots",
            "cuda_host (Iota f32): it does not",
        ):
            verdict = through_host("kernels", [self.row(many + "[ cuda ] 1 rows on " + line)], self.LISTED)
            self.assertEqual(verdict.status, "failed")
            self.assertIn(line.partition(": ")[2], verdict.text)

    def test_at_most_three_in_a_hundred(self) -> None:
        rows = [self.row("[ cuda ] 96 rows on cuda_matmul\n[ cuda ] 4 rows on cuda_host (Reduce i32): it takes no roots\n")]
        self.assertEqual(through_host("kernels", rows, self.LISTED, MOST_THROUGH_HOST).status, "failed")
        self.assertEqual(through_host("rank_rows", rows, self.LISTED).status, "passed")


class Sanitizer(unittest.TestCase):
    def test_verdicts(self) -> None:
        clean, race = "========= ERROR SUMMARY: 0 errors\n", "Race reported between Write access at {}_kernel+0x1\n"
        for status, text, verdict in (
            (0, clean, "passed"),
            (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", "passed"),
            (0, "========= RACECHECK SUMMARY: 12 hazards displayed (0 errors, 12 warnings)\n", "failed"),
            (0, "========= RACECHECK SUMMARY: 10 hazards displayed (0 errors, 10 warnings)\n", "failed"),
            (0, clean + "[  SKIPPED ] 1 test", "skipped"),
            (9, "========= ERROR SUMMARY: 2 errors\n", "failed"),
            (0, "", "failed"),
            (9, race.format("softmax"), "failed"),
            (9, race.format("cudnn_attention"), "skipped"),
            (9, race.format("cudnn_attention") + race.format("softmax"), "failed"),
            (124, "no end after 90 s", "failed"),
            (9, "Target application terminated before first instrumented API call", "skipped"),
        ):
            self.assertEqual(sanitizer.verdict_of(status, text)[0], verdict, text)


def ceilings(copy: float, product: float, **words: str) -> dict:
    text = "\n".join(json.dumps(line) for line in ({"name": "copy", "tb_s": copy}, {"name": "product", "tflop_s": product}))
    return {"stage": "probe", "name": "ceilings", "status": "passed", "text": text, **words}


def bench_row(name: str, stage: str = "bench", **values: float) -> dict:
    return {"stage": stage, "name": name, "status": "passed", "text": "", "values": values}


class Bars(unittest.TestCase):
    def test_verdicts(self) -> None:
        rows = [
            ceilings(4.0, 676),
            bench_row("MatMul 8192 bf16 through an engine", "engines", library_ratio=0.97),
            bench_row("LayerNorm", gb_s=3600),
            bench_row("Softmax 512", gb_s=3600, copy_gb_s=4200),
            bench_row("Attention 8K", us=1),  # the peer gave no answer
            bench_row("enqueue of 200 kernels, replayed", "engines", p50_us=20, p99_us=61),
            bench_row("RmsNorm", "kernels", gb_s=9999),
        ]
        found = {(bar.row, bar.what): verdict for bar, _, verdict in bars.verdicts(rows)}
        self.assertEqual(found["MatMul 8192 bf16 through an engine", "cuBLASLt alone / ours"], "missed")
        self.assertEqual(found["LayerNorm", "of a copy of the same bytes"], "met")
        self.assertEqual(found["Softmax 512", "of a copy of the same bytes"], "missed")  # of the copy beside it, not of the ceiling
        self.assertEqual(found["Attention 8K", "cuDNN alone / ours"], "not measured")
        self.assertEqual(found["RmsNorm", "of a copy of the same bytes"], "not run")
        self.assertEqual(found["enqueue of 200 kernels, replayed", "µs of the host, median"], "met")
        self.assertEqual(found["enqueue of 200 kernels, replayed", "µs of the host, 99 of 100"], "missed")
        self.assertFalse(bars.are_valid(rows))
        self.assertTrue(bars.are_valid([ceilings(4.1, 690), *rows[1:]]))
        self.assertFalse(bars.are_valid([ceilings(4.24, 779), *rows[1:]]))
        self.assertFalse(bars.are_valid(rows[1:]))

    def test_ceilings_are_those_of_the_same_call_on_the_same_gpu(self) -> None:
        one, other = {"uuid": "GPU-1a,GPU-2b", "begun": "10:00"}, {"uuid": "GPU-2b", "begun": "10:00"}
        later = {"uuid": "GPU-2b", "begun": "11:00"}
        rows = [ceilings(copy, 676, **words) for copy, words in ((4.1, one), (4.2, other), (4.3, later))]
        copies = [ceilings_of(row, rows).copy for row in (one, other, later, {"uuid": "GPU-1a", "begun": "12:00"})]
        self.assertEqual(copies, [4.1, 4.2, 4.3, 4.1])
        self.assertIsNone(ceilings_of({"uuid": "GPU-3c", "begun": "10:00"}, rows))

    def test_what_is_missed_is_told_and_fails_the_run(self) -> None:
        def rows(gpu: str, copy: float, gb_s: float) -> list[Row]:
            return [Row(gpu=gpu, **row) for row in ({**ceilings(copy, 676), "values": {}}, bench_row("LayerNorm", gb_s=gb_s))]

        lines, good = gpu_check.judged(rows("NVIDIA H200", 4.2, 4000))
        self.assertTrue(good)
        self.assertRegex(lines[0], r"^bars: 1 met, 0 missed, 0 not measured, \d+ not run; they count$")
        lines, good = gpu_check.judged(rows("NVIDIA H200", 4.2, 3000))
        self.assertFalse(good)
        self.assertRegex("\n".join(lines), r"\nmissed: LayerNorm, of a copy of the same bytes, wanted ≥ 0.88, found 0.71")
        lines, good = gpu_check.judged(rows("NVIDIA H200", 3.9, 4000))
        self.assertEqual((good, "they do not count" in lines[0]), (False, True))
        lines, good = gpu_check.judged(rows("NVIDIA H100", 4.2, 3000))
        self.assertEqual((good, "not judged" in lines[0]), (True, True))
        self.assertEqual(gpu_check.judged([Row("kernels", "row", "passed")]), ([], True))

    def test_a_row_that_compared_nothing_has_failed(self) -> None:
        class Answers:
            def __init__(self, **values: float) -> None:
                self.values = values

            def ask(self, name: str, limit: float = 0) -> dict:
                return {"name": name, "us": 2.0, **self.values}

        for values, status in (({"error": 0.0}, "passed"), ({"error": 0.1}, "failed"), ({"error": -1}, "failed"), ({}, "failed")):
            row = timings.bench_row("Add", Answers(**values), Answers(), None)
            self.assertEqual((row.status, row.values["us"], row.values["ratio"]), (status, 2.0, 1.0), values)
        for values, status in (({"error": 0.0}, "passed"), ({}, "failed"), ({"error": 0.1}, "failed")):
            row = timings.product_row("MatMul", Answers(**values), Answers())
            self.assertEqual((row.stage, row.status, row.values["library_ratio"]), ("engines", status, 1.0), values)
        row = timings.bench_row("LayerNorm", Answers(gb_s=5.0), Answers(), None)
        self.assertEqual(row.values["copy_gb_s"], 5.0)

    def test_rows_are_those_of_the_benchmarks(self) -> None:
        text = "".join(
            (TOOLS.parent / "bench" / file).read_text(encoding="utf-8")
            for file in ("peers/gpu_torch.py", "gpu_models.py", "gpu_engine.cpp")
        ) + (TOOLS / "gpu_checks/timings.py").read_text(encoding="utf-8")
        for bar in bars.BARS:
            start = (
                bar.row.removesuffix(" through an engine").partition(" batch ")[0].partition(",")[0].removesuffix(" f16").rpartition(" ")[0]
                or bar.row
            )
            self.assertTrue(start in text, bar.row)

    def test_those_of_several_gpus_are_judged_on_four(self) -> None:
        values = {"us": 4.38, "peer": {"NCCL": 4.0, "NCCL windows": "this PyTorch has none"}}
        rows = [
            bench_row("Attention over ranks 8K", "ranks", ratio=1.371),
            bench_row("Attention over ranks 128K", "ranks", ratio=0.99),
            *(bench_row(f"AllReduce + residual + RmsNorm {kb} KB", "ranks", **values) for kb in (8, 16384)),
            bench_row("supervision 8 KB by nccl", "supervision", cost=1.02),
        ]
        four, two = ({(bar.row, bar.what): verdict for bar, _, verdict in bars.rank_verdicts(rows, count)} for count in (4, 2))
        wanted = {
            ("Attention over ranks 8K", "PyTorch / ours"): "missed",
            ("Attention over ranks 128K", "PyTorch / ours"): "met",
            ("Attention over ranks 32K", "PyTorch / ours"): "not run",
            ("AllReduce + residual + RmsNorm 8 KB", "µs"): "missed",
            ("AllReduce + residual + RmsNorm 16384 KB", "ours / NCCL and a kernel"): "missed",
            ("AllReduce + residual + RmsNorm 16384 KB", "ours / NCCL windows and a kernel"): "not measured",
            ("supervision 8 KB by nccl", "with / without"): "missed",
        }
        for bar, verdict in wanted.items():
            self.assertEqual(four[bar], verdict, bar)
            self.assertEqual(two[bar], verdict if verdict in ("not measured", "not run") else "not judged", bar)

    def test_rank_rows_are_those_of_the_benchmarks(self) -> None:
        text = "".join((TOOLS.parent / "bench" / f).read_text(encoding="utf-8") for f in ("gpu_ranks_bench.cpp", "gpu_supervision.cpp"))
        for start in ("Attention over ranks", "AllReduce + residual + RmsNorm", "supervision "):
            self.assertIn(start, text)
            self.assertTrue(any(bar.row.startswith(start) for bar in bars.RANK_BARS))


class SeveralGpus(unittest.TestCase):
    PROBE = "NVIDIA H200, 570.1, 143771 MiB, 1980 MHz"

    def probe(self, *lines: str) -> list[dict]:
        return [{"stage": "probe", "name": "gpu", "status": "passed", "text": "\n".join(lines), "values": {}}]

    def test_their_number_is_part_of_the_device(self) -> None:
        self.assertEqual(gpu_results.device_of(self.probe(self.PROBE)), "NVIDIA H200")
        self.assertEqual(gpu_results.device_of(self.probe(self.PROBE, self.PROBE)), "2x NVIDIA H200")
        one, two = self.probe(self.PROBE), self.probe(self.PROBE, self.PROBE)
        self.assertEqual(gpu_results.device_of(one + one), "NVIDIA H200")  # two calls side by side
        self.assertEqual(gpu_results.device_of(one + two), "2x NVIDIA H200")
        for rows in ([], self.probe(""), self.probe(self.PROBE, "NVIDIA A100, 570.1, 81920 MiB, 1980 MHz")):
            with self.assertRaises(SystemExit):
                gpu_results.device_of(rows)

    def test_files_say_how_many(self) -> None:
        for name, count in (
            ("2026-11-22-a6f9180-NVIDIA-H200.json", 1),
            ("2026-11-22-d6e0a43-4x-NVIDIA-H200.json", 4),
            ("2026-11-22-d6e0a43-2x-NVIDIA-H100-80GB.json", 2),
        ):
            self.assertEqual(several.count_of(name), count)

    def test_what_was_made_by_hand_is_shown_of_several_while_there_is_no_other(self) -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(gpu_results, "RESULTS", Path(folder)):

            def keep(name: str, **words: str) -> None:
                (Path(folder) / name).write_text(json.dumps({"file": name, **words}))

            def newest() -> dict[int, str]:
                return {count: one["file"] for count, one in gpu_results.newest("").items()}

            keep("2026-11-22-aaaaaaa-GPU.json", made_by="hand")
            with self.assertRaises(SystemExit):
                newest()
            keep("2026-11-21-bbbbbbb-GPU.json")
            keep("2026-11-22-ccccccc-4x-GPU.json", made_by="hand")
            self.assertEqual(newest(), {1: "2026-11-21-bbbbbbb-GPU.json", 4: "2026-11-22-ccccccc-4x-GPU.json"})
            keep("2026-11-20-ddddddd-4x-GPU.json")
            self.assertEqual(newest()[4], "2026-11-20-ddddddd-4x-GPU.json")

    def test_ways_are_in_names(self) -> None:
        for name, way in (
            ("World/Ranks.Cell/2 by peer, processes", "peer, processes"),
            ("gpt2_dynamo tp=2 by nccl, threads", "nccl, threads"),
            ("Peers.SubGroups by 3 ranks", "3 ranks"),
            ("Nccl/GpuGroups.PartsOfTheRanks/nccl_threads_2", "nccl, threads"),
            ("By/GpuFailures.AKilledRankIsNamed/nccl_buffers", "nccl, buffers"),
            ("By/GpuFailures.AStoppedRankIsNamed/peer", "peer"),
            ("Peers.TenThousandReplays", ""),
            ("World/Ranks.Cell/2", ""),
        ):
            self.assertEqual(several.way_of({"name": name}), way, name)

    def test_the_block_has_counts_kernels_times_and_words(self) -> None:
        def row(stage: str, name: str, status: str = "passed", text: str = "", **values: object) -> dict:
            return {"stage": stage, "name": name, "status": status, "text": text, "values": values}

        rows = [
            row("groups", "Peers.A by 3 ranks", peer=40),
            row("rank_rows", "R/2 by peer, threads", peer=2),
            row("rank_rows", "S/2 by peer, threads", "failed", "it | broke\nbadly"),
            row("rank_rows", "on 4 GPUs", "skipped", "40 tests need 4 GPUs, this machine has 2"),
            row("ranks", "Attention over ranks 8K", us=402.1, peer_us=551.2, ratio=1.371, error=0.003, peer={"all-to-all": 551.2}),
            row("ranks", "AllReduce + residual + RmsNorm 8 KB", us=4.38, peer_us=8.55, ratio=1.95, peer={"NCCL": 8.55, "windows": "none"}),
        ]
        result = {"file": "2026-11-22-d6e0a43-4x-NVIDIA-H200.json", "date": "2026-11-22", "commit": "d6e0a43", "device": "4x NVIDIA H200"}
        text = "\n".join(several.block_of({**result, "rows": rows}))
        for words in (
            "on 4×NVIDIA H200 of one host",
            "| rank_rows | peer, threads | 1 | 1 | 0 |",
            "| groups | 3 ranks | 1 | 0 | 0 |",
            "- failed: rank_rows, S/2 by peer, threads: it broke badly",
            "- skipped: rank_rows, on 4 GPUs: 40 tests need 4 GPUs, this machine has 2",
            "Rows of tests by what ran them: 42 peer.",
            "| Attention over ranks 8K | 402 | 551 | 1.37 | all-to-all 551 | 3.0e-03 |",
            "NCCL 8.55, windows (none)",
            "| Attention over ranks 8K | PyTorch / ours | ≥ 1.45 | 1.37 | missed |",
            "| AllReduce + residual + RmsNorm 8 KB | µs | ≤ 3.4 | 4.38 | missed |",
        ):
            self.assertIn(words, text)
        two = "\n".join(several.block_of({**result, "file": result["file"].replace("4x", "2x"), "rows": rows}))
        self.assertIn("| ≥ 1.45 | 1.37 | not judged |", two)
        self.assertNotIn("missed |", two)


class Results(Case):
    def keep(self, rows: list[Row]) -> subprocess.CompletedProcess:
        file = self.folder / "rows.jsonl"
        file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
        command = [sys.executable, str(TOOLS / "gpu_results.py"), str(file), "--manifest", str(self.folder / "manifest.json")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})

    def test_a_tree_with_changes_is_refused(self) -> None:
        self.pack("first", dirty=True)
        done = self.keep([Row("probe", "gpu", "passed", programs="first")])
        self.assertEqual(done.returncode, 1)
        self.assertIn("changes that were not committed", done.stderr)

    def test_gpus_of_several_kinds_are_refused(self) -> None:
        for kinds in (("NVIDIA H100", "NVIDIA H200"), ("NVIDIA H100 and NVIDIA H200",)):
            done = self.keep([Row("probe", "gpu", "passed", programs="programs of the first pack", gpu=kind) for kind in kinds])
            self.assertEqual(done.returncode, 1)
            self.assertIn("GPUs of several kinds: NVIDIA H100", done.stderr)

    def test_rows_of_other_programs_are_refused(self) -> None:
        self.pack("second")
        done = self.keep([Row("probe", "gpu", "passed", programs="first")])
        self.assertEqual(done.returncode, 1)
        self.assertIn("rows are of other programs", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
