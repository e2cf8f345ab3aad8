"""tools/gpu_check.py with a pack whose programs are scripts."""

import json
import os
import subprocess
import time
import unittest
from argparse import Namespace

from gpu_pack_case import TWO_GPUS, Case  # first: it says where tools are

# isort: split
import gpu_check
from gpu_checks import sanitizer
from gpu_checks.rows import Check, Row
from gpu_checks.tests import GROUPS_ALONE, MOST_THROUGH_HOST, counts_of, through_host


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


if __name__ == "__main__":
    unittest.main(verbosity=2)
