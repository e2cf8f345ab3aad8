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

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import gpu_check  # noqa: E402
import gpu_results  # noqa: E402
from gpu_checks import bars, sanitizer, several  # noqa: E402
from gpu_checks.rows import Check, Row  # noqa: E402
from gpu_checks.tests import GROUPS_ALONE, MOST_THROUGH_HOST, counts_of, through_host  # noqa: E402

# Lists three tests; each says which rows it ran, and leaves its name in a log. Bad fails while there is a file `bad`.
PROGRAM = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'Suite.\\n  Good\\n  Host\\n  Bad\\n'; exit 0;;
esac
name=${1#--gtest_filter=Suite.}
echo "$name" >> @LOG@
case "$name" in
  Good) echo '[ cuda ] 99 rows on cuda_matmul'; echo '[ cuda ] 8 rows on cuda_reduce';;
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
name=${1#--gtest_filter=*.}
mkdir -p @RUNNING@; touch @RUNNING@/$$; before=$(ls @RUNNING@ | wc -l)
sleep 0.3
after=$(ls @RUNNING@ | wc -l); rm @RUNNING@/$$
how=together
[ $before != 1 ] || [ $after != 1 ] || how=alone
echo "$name:${TANDEM_TEST_RANKS:-all}:${CUDA_DEVICE_MAX_CONNECTIONS:-8}:$how" >> @LOG@
"""
SUPERVISION = """#!/bin/sh
echo "$1 $2" >> @LOG@
echo '{"backend": "peer", "refused": "no way"}'
echo '{"name": "supervision 8 KB by nccl", "ranks": 2, "us": 8.1, "without_us": 8.0, "cost": 1.0125}'
[ ! -e @BAD@ ] || exit 1
"""
LISTED_WHY = "lengths are counted over the whole sequence; it is for split='qkv'"
TWO_GPUS = "#!/bin/sh\nprintf 'GPU 0: one\\nGPU 1: another\\n'\n"


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
        expected = {"Suite.Good": "passed", "Suite.Host": "passed", "Suite.Bad": "passed", "rows through the host": "passed"}
        self.assertEqual(self.rows(), expected)
        for words in ("kernels: 4 passed, 0 failed, 0 skipped", "101 rows on cuda_matmul", "1 rows on cuda_host (Reduce i32)"):
            self.assertIn(words, done.stdout)

    def test_resume_runs_what_has_not_passed_and_keeps_the_rest(self) -> None:
        self.bad.touch()
        self.assertEqual(self.check("kernels").returncode, 1)
        self.assertEqual(self.rows()["Suite.Bad"], "failed")
        self.assertEqual(self.ran(), ["Bad", "Good", "Host"])
        self.bad.unlink()
        self.assertEqual(self.check("kernels", "--resume").returncode, 0)  # of the file that is written anew
        self.assertEqual(self.ran(), ["Bad"])
        self.assertEqual(set(self.rows().values()), {"passed"})
        self.assertEqual(len(self.rows()), 4)
        self.check("kernels", "--resume", str(self.out / "rows.jsonl"))
        self.assertEqual(self.ran(), [])
        self.assertEqual(len(self.rows()), 4)

    def test_resume_takes_nothing_of_other_programs(self) -> None:
        self.check("kernels")
        self.ran()
        self.pack("programs of the second pack")
        self.assertEqual(self.check("kernels", "--resume").returncode, 0)
        self.assertEqual(self.ran(), ["Bad", "Good", "Host"])

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
        self.assertGreater(sum(line[3] == "together" for line in ran), 6)
        self.assertEqual({(count, connections) for _, count, connections, _ in ran}, {("all", "8"), ("3", "32"), ("4", "32"), ("8", "32")})
        for name, counts in ((alone[0], ["all"]), (alone[1], ["4", "all"]), ("Quick", ["3", "4", "8", "all"])):
            self.assertEqual(sorted({line[1] for line in ran if line[0] == name}), counts)
        self.assertEqual(self.rows()["Peers.Quick by 8 ranks"], "passed")

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

    def test_the_table_has_at_most_a_hundred_lines(self) -> None:
        rows = [Row("kernels", f"row {i}", "failed", 0, "why\n" * 9) for i in range(500)]
        self.assertEqual(len(gpu_check.table(rows).splitlines()), 100)


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
            (0, clean + "[  SKIPPED ] 1 test", "skipped"),
            (9, "========= ERROR SUMMARY: 2 errors\n", "failed"),
            (0, "", "failed"),
            (9, race.format("softmax"), "failed"),
            (9, race.format("cudnn_attention"), "skipped"),
            (9, race.format("cudnn_attention") + race.format("softmax"), "failed"),
            (124, "no end after 90 s", "skipped"),
            (9, "Target application terminated before first instrumented API call", "skipped"),
        ):
            self.assertEqual(sanitizer.verdict_of(status, text)[0], verdict, text)


class Bars(unittest.TestCase):
    def test_verdicts(self) -> None:
        rows = [
            {"stage": "bench", "name": "MatMul 8192 bf16", "values": {"library_ratio": 0.97}},
            {"stage": "bench", "name": "LayerNorm", "values": {"gb_s": 3600}},
            {"stage": "bench", "name": "Attention 8K", "values": {"us": 1}},  # the peer gave no answer
            {"stage": "engines", "name": "enqueue of 200 kernels, replayed", "values": {"p50_us": 20, "p99_us": 61}},
            {"stage": "kernels", "name": "RmsNorm", "values": {"gb_s": 9999}},
        ]
        found = {(bar.row, bar.what): verdict for bar, _, verdict in bars.verdicts(rows, 4.0)}
        self.assertEqual(found["MatMul 8192 bf16", "cuBLASLt alone / ours"], "missed")
        self.assertEqual(found["LayerNorm", "of a copy of the same bytes"], "met")
        self.assertEqual(found["Attention 8K", "cuDNN through PyTorch / ours"], "not measured")
        self.assertEqual(found["RmsNorm", "of a copy of the same bytes"], "not measured")
        self.assertEqual(found["enqueue of 200 kernels, replayed", "µs of the host, median"], "met")
        self.assertEqual(found["enqueue of 200 kernels, replayed", "µs of the host, 99 of 100"], "missed")
        self.assertTrue(bars.is_valid(4.1, 690))
        self.assertFalse(bars.is_valid(4.24, 779))

    def test_rows_are_those_of_the_benchmarks(self) -> None:
        text = "".join(
            (TOOLS.parent / "bench" / file).read_text(encoding="utf-8")
            for file in ("peers/gpu_torch.py", "gpu_models.py", "gpu_engine.cpp")
        ) + (TOOLS / "gpu_checks/timings.py").read_text(encoding="utf-8")
        for bar in bars.BARS:
            start = bar.row.partition(" batch ")[0].partition(",")[0].removesuffix(" f16").rpartition(" ")[0] or bar.row
            self.assertIn(start, text, bar.row)

    def test_those_of_several_gpus_are_judged_on_four(self) -> None:
        values = {"us": 4.38, "peer": {"NCCL": 4.0, "NCCL windows": "this PyTorch has none"}}
        rows = [
            {"stage": "ranks", "name": "Attention over ranks 8K", "values": {"ratio": 1.371}},
            {"stage": "ranks", "name": "Attention over ranks 128K", "values": {"ratio": 0.99}},
            *({"stage": "ranks", "name": f"AllReduce + residual + RmsNorm {kb} KB", "values": values} for kb in (8, 16384)),
            {"stage": "supervision", "name": "supervision 8 KB by nccl", "values": {"cost": 1.02}},
        ]
        four, two = ({(bar.row, bar.what): verdict for bar, _, verdict in bars.rank_verdicts(rows, count)} for count in (4, 2))
        wanted = {
            ("Attention over ranks 8K", "PyTorch / ours"): "missed",
            ("Attention over ranks 128K", "PyTorch / ours"): "met",
            ("Attention over ranks 32K", "PyTorch / ours"): "not measured",
            ("AllReduce + residual + RmsNorm 8 KB", "µs"): "missed",
            ("AllReduce + residual + RmsNorm 16384 KB", "ours / NCCL and a kernel"): "missed",
            ("AllReduce + residual + RmsNorm 16384 KB", "ours / NCCL windows and a kernel"): "not measured",
            ("supervision 8 KB by nccl", "with / without"): "missed",
        }
        for bar, verdict in wanted.items():
            self.assertEqual(four[bar], verdict, bar)
            self.assertEqual(two[bar], "not measured" if verdict == "not measured" else "not judged", bar)

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

    def test_rows_of_other_programs_are_refused(self) -> None:
        self.pack("second")
        done = self.keep([Row("probe", "gpu", "passed", programs="first")])
        self.assertEqual(done.returncode, 1)
        self.assertIn("rows are of other programs", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
