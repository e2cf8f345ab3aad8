"""What bars say of rows, and tools/gpu_results.py, with a pack whose programs are scripts."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from gpu_pack_case import TOOLS, Case  # first: it says where tools are

# isort: split
import gpu_check
import gpu_results
from gpu_checks import bars, several, timings
from gpu_checks.ceilings import ceilings_of
from gpu_checks.rows import Row


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
