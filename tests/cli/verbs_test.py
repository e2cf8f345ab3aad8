"""What each verb does when all is well, and that its help teaches."""

import json
import re
import signal
import subprocess
import unittest

import numpy as np
from program import MODELS, TANDEM, ProgramTest, Running, cases_path, model_path, product
from safetensors.numpy import load_file, save_file

VERBS = ["run", "verify", "inspect", "bench", "doctor"]


def inputs_of(cases: dict, case: str = "case0") -> dict:
    prefix = f"{case}.input."
    return {name.removeprefix(prefix): value for name, value in cases.items() if name.startswith(prefix)}


class Help(ProgramTest):
    def test_every_verb(self) -> None:
        listed = re.findall(r"^  ([a-z]+) ", self.succeed("--help").partition("Subcommands:")[2], re.M)
        self.assertLessEqual(set(VERBS), set(listed))
        for verb in listed:
            text = self.succeed(verb, "--help")
            for words in ("--json", "--log-level", "--help", "Example"):
                self.assertIn(words, text, verb)
            for option in re.split(r"^  (?=-)", text.partition("Options:")[2], flags=re.M)[1:]:
                name, _, rest = option.partition(" ")
                self.assertRegex(rest, r" {2,}\S+|\n +\S+", f"{verb} {name} is not explained")
        self.assertNotIn("rank", listed)

    def test_version(self) -> None:
        self.assertRegex(self.succeed("--version"), r"^tandem \d+\.\d+\.\d+\n$")


class Run(ProgramTest):
    def test_recorded_case(self) -> None:
        cases = load_file(cases_path("bert_legacy"))
        save_file(inputs_of(cases), self.folder / "in.safetensors")
        for where in ([], ["--mesh", "tp=2"], ["--mesh", "dp=2", "--isolate", "threads"]):
            self.succeed("run", model_path("bert_legacy"), *where, "--inputs", "in.safetensors", "--outputs", "out.safetensors")
            outputs = load_file(self.folder / "out.safetensors")
            for name, value in outputs.items():
                np.testing.assert_allclose(value, cases[f"case0.output.{name}"], atol=1e-4)

    def test_npy_inputs(self) -> None:
        x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
        np.save(self.folder / "x.npy", x)
        report = self.succeed_json("run", self.save(product()), "--input", "x=x.npy", "--mesh", "dp=2")
        self.assertEqual((report["ranks"], report["mesh"]), (2, "dp=2"))
        self.assertEqual(report["outputs"], [{"name": "y", "dtype": "f32", "shape": [3, 8]}])

    def test_profile(self) -> None:
        for verb in (["run"], ["bench", "--runs", "3", "--warmup", "0"]):
            ranks = self.succeed_json(*verb, model_path("mlp_legacy"), "--mesh", "tp=2", "--profile")["profile"]
            self.assertEqual([rank["rank"] for rank in ranks], [0, 1])
            for rank in ranks:
                times = [step["us"] for step in rank["steps"]]
                self.assertEqual(times, sorted(times, reverse=True))
                self.assertLessEqual({step["kind"] for step in rank["steps"]}, {"compute", "communication", "wait"})
                self.assertTrue(any(step["kind"] != "compute" for step in rank["steps"]))
                self.assertAlmostEqual(sum(times), rank["compute_us"] + rank["communication_us"] + rank["wait_us"], delta=0.01)
            text = self.succeed(*verb, model_path("mlp_legacy"), "--mesh", "tp=2", "--profile")
            self.assertRegex(text, r"(?m)^ +[\d.]+ +[\d.]+ +[\d.]+  compute +MatMul +\w+ +\S+")
            self.assertRegex(text, r"(?m)^rank 1: compute [\d.]+ ms, communication [\d.]+ ms, wait [\d.]+ ms$")

    def test_optimization_profiles(self) -> None:
        path = self.save(product())
        shapes = ["--shape", "x=1x8:1x8:4x8", "--shape", "x=2x8:16x8:64x8"]
        self.succeed("build", path, "-o", "two.tandem", "--mesh", "tp=2", *shapes)
        told = self.succeed_json("inspect", "two.tandem")
        self.assertEqual([profile["symbols"] for profile in told["profiles"]], [{"rows": [1, 1, 4]}, {"rows": [2, 16, 64]}])
        self.assertEqual(
            [profile["inputs"][0]["range"] for profile in told["profiles"]], [[[1, 8], [1, 8], [4, 8]], [[2, 8], [16, 8], [64, 8]]]
        )
        self.assertEqual((told["profile"], self.succeed_json("inspect", "two.tandem", "--at", "rows=50")["profile"]), (0, 1))
        text = self.succeed("inspect", "two.tandem")
        self.assertIn("profile 1: x 2x8:16x8:64x8; ", text)
        self.assertIn("steps of profile 0", text)
        for isolate in ("processes", "threads"):
            for profile, rows in enumerate((1, 16)):
                report = self.succeed_json("run", "two.tandem", "--isolate", isolate, "--use-profile", profile)
                self.assertEqual(report["outputs"][0]["shape"], [rows, 8])
        self.assertIn("profile 1", self.succeed("verify", path, "--mesh", "tp=2", *shapes))
        self.succeed("verify", path, *shapes)  # against plain loops

    def test_random_inputs_are_announced(self) -> None:
        done = self.run_program("run", self.save(product()))
        self.assertIn("random", done.stderr)
        self.assertNotIn("random", done.stdout)
        self.assertEqual(self.run_program("run", self.save(product()), "--log-level", "off").stderr, "")

    def test_timeline(self) -> None:
        self.succeed("run", model_path("mlp_legacy"), "--mesh", "tp=2", "--trace", "trace.json")
        events = json.loads((self.folder / "trace.json").read_text())["traceEvents"]
        spans = [e for e in events if e["ph"] == "X"]
        self.assertEqual({e["pid"] for e in spans}, {0, 1})
        self.assertEqual({e["tid"] for e in spans}, {0, 1})  # computation and communication
        self.assertTrue(all(e["dur"] >= 0 and e["args"]["node"] for e in spans))
        self.assertIn("AllReduce", {e["name"] for e in spans})

    def test_files_of_each_rank(self) -> None:
        cases = load_file(cases_path("sharded_mlp"))
        save_file(inputs_of({k.replace("rank0.", ""): v for k, v in cases.items() if "rank1." not in k}), self.folder / "in.safetensors")
        report = self.succeed_json("run", MODELS / "sharded_mlp_rank{rank}.onnx", "--ranks", 2, "--inputs", "in.safetensors")
        self.assertEqual(report["ranks"], 2)

    def test_threads_per_rank(self) -> None:
        self.succeed("run", self.save(product()), "--mesh", "tp=2", "--threads", 3)


class Verify(ProgramTest):
    def test_meshes_against_recorded_cases(self) -> None:
        report = self.succeed_json(
            "verify", model_path("mlp_legacy"), "--mesh", "tp=2", "--mesh", "dp=2", "--cases", cases_path("mlp_legacy")
        )
        self.assertTrue(report["passed"])
        self.assertEqual([r["mesh"] for r in report["results"]], ["tp=2", "dp=2"])
        references = {o["reference"] for o in report["results"][0]["outputs"]}
        self.assertIn("case0", references)
        self.assertIn("unsharded case0", references)
        self.assertEqual([c["operation"] for c in report["results"][0]["collectives"]], ["all_reduce"])

    def test_without_a_mesh_it_is_no_comparison_with_itself(self) -> None:
        report = self.succeed_json("verify", model_path("mlp_legacy"))
        self.assertEqual({o["reference"] for o in report["results"][0]["outputs"]}, {"plain loops random"})
        recorded = self.succeed_json("verify", model_path("mlp_legacy"), "--cases", cases_path("mlp_legacy"))
        self.assertTrue(all(o["reference"].startswith("case") for o in recorded["results"][0]["outputs"]))

    def test_plain_loops_agree_for_every_family(self) -> None:
        for name in ("bert_legacy", "gpt2_dynamo", "llama_legacy", "qwen3_legacy", "sdpa_gqa_causal_op23"):
            report = self.succeed_json("verify", model_path(name))
            self.assertTrue(report["passed"], name)

    def test_number_of_ranks_instead_of_a_mesh(self) -> None:
        report = self.succeed_json("verify", model_path("mlp_legacy"), "--ranks", 2)
        self.assertIn(report["results"][0]["mesh"], ("tp=2", "dp=2"))

    def test_strategy_for_all_ranks(self) -> None:
        report = self.succeed_json("verify", model_path("mlp_legacy"), "--ranks", 2, "--strategy", "tp")
        self.assertEqual(report["results"][0]["mesh"], "tp=2")
        report = self.succeed_json("run", model_path("mlp_legacy"), "--mesh", "x=2", "--strategy", "x=dp")
        self.assertEqual(report["mesh"], "x=2")
        report = self.succeed_json("run", model_path("mlp_legacy"), "--ranks", 4, "--strategy", "auto")
        self.assertEqual(report["ranks"], 4)

    def test_lower_precision(self) -> None:
        for dtype, tolerance in (("f16", 1e-2), ("bf16", 5e-2)):
            for name in ("bert_legacy", "mlp_legacy"):
                report = self.succeed_json("verify", model_path(name), "--dtype", dtype, "--mesh", "tp=2", "--cases", cases_path(name))
                outputs = report["results"][0]["outputs"]
                self.assertEqual({o["tolerance"] for o in outputs}, {tolerance})
                self.assertGreater(max(o["relative"] for o in outputs if o["reference"].startswith("case")), 1e-5)

    def test_placed_inputs_and_outputs(self) -> None:
        report = self.succeed_json("inspect", model_path("mlp_legacy"), "--mesh", "dp=2", "--io", "y=same")
        self.assertNotIn("dp", report["outputs"][0]["sharding"])
        self.assertTrue(report["collectives"])

    def test_text(self) -> None:
        text = self.succeed("verify", model_path("mlp_legacy"), "--mesh", "tp=2")
        self.assertRegex(text, r"^passed tp=2\n  ok  \S+ against unsharded random: absolute [\d.e-]+, relative [\d.e-]+, allowed 1e-04\n")


class Inspect(ProgramTest):
    def test_json(self) -> None:
        report = self.succeed_json("inspect", model_path("mlp_legacy"), "--mesh", "tp=2")
        self.assertEqual((report["mesh"], report["world_size"], report["device"]), ("tp=2", 2, "cpu"))
        self.assertEqual(len(report["ranks"]), 2)
        (use,) = report["collectives"]
        self.assertEqual((use["operation"], use["axis"]), ("all_reduce", "tp"))
        self.assertTrue(use["node"] and use["note"] and use["bytes"])

    def test_what_it_was_built_with(self) -> None:
        self.succeed("build", model_path("mlp_legacy"), "-o", "e.tandem", "--exact", "--refittable", "--strict")
        report = self.succeed_json("inspect", "e.tandem", "--strict")
        self.assertEqual(report["built_with"]["options"], "exact refittable timed")
        self.assertEqual(report["built_with"]["target"], "cpu")
        self.assertRegex(report["built_with"]["compiler"], r"^(gcc|clang) \d+\.")
        self.assertTrue(report["exact"])
        text = self.succeed("inspect", "e.tandem")
        for what, which in report["built_with"].items():
            self.assertIn(f"built with {what}: {which}\n", text)
        self.succeed("run", "e.tandem", "--strict")

    def test_tf32_is_said_to_change_nothing_here(self) -> None:
        said = self.run_program("build", model_path("mlp_legacy"), "-o", "e.tandem", "--no-timing", "--tf32")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("TF32 changes nothing on CPU ranks", said.stderr)
        report = self.succeed_json("inspect", "e.tandem")
        self.assertEqual((report["built_with"]["options"], report["tf32"]), ("tf32", False))
        self.assertTrue(any("TF32" in notice for notice in report["notices"]))
        checks = self.succeed_json("verify", model_path("mlp_legacy"), "--tf32")["results"]
        self.assertEqual({output["tolerance"] for check in checks for output in check["outputs"]}, {1e-4})

    def test_text_and_page(self) -> None:
        text = self.succeed("inspect", model_path("mlp_legacy"), "--mesh", "tp=2", "--html", "page.html")
        self.assertIn("all_reduce", text)
        page = (self.folder / "page.html").read_text()
        self.assertTrue(page.startswith("<!doctype html>"))
        for words in ("all_reduce", "tp=2", "mlp_legacy.onnx"):
            self.assertIn(words, page)
        self.assertNotRegex(page, r"https?://")


class Bench(ProgramTest):
    def test_model(self) -> None:
        report = self.succeed_json("bench", model_path("mlp_legacy"), "--mesh", "tp=2", "--runs", 5, "--warmup", 1)
        self.assertEqual((report["ranks"], report["runs"]), (2, 5))
        self.assertLessEqual(report["min_ms"], report["median_ms"])
        self.assertLessEqual(report["median_ms"], report["p99_ms"])

    def test_collectives(self) -> None:
        report = self.succeed_json("bench", "collectives", "--ranks", 3, "--size", "1K,96K", "--runs", 2)
        operations = {r["operation"] for r in report["results"]}
        self.assertLessEqual(
            {"all_reduce", "all_gather", "broadcast", "reduce", "reduce_scatter", "all_to_all", "gather", "scatter"}, operations
        )
        self.assertEqual(len(report["results"]), 2 * len(operations))
        self.assertTrue(all(r["median_us"] > 0 and r["error"] < 1e-5 for r in report["results"]))
        one = self.succeed(
            "bench", "collectives", "--operation", "all_reduce", "--reduce", "max", "--dtype", "i32", "--size", "4K", "--runs", 2
        )
        self.assertRegex(one, r"all_reduce +4 KiB")
        self.refuse(
            "bench",
            "collectives",
            "--operation",
            "nonsense",
            "--size",
            "1K",
            "--runs",
            1,
            code="invalid_argument",
            says=["nonsense", "all_reduce"],
        )
        self.refuse("bench", "collectives", "--size", "big", code="usage", says=["big"], exit_code=2)

    def test_attention(self) -> None:
        words = ["--ranks", 2, "--sequence", 96, "--heads", 4, "--kv-heads", 2, "--causal", "--runs", 2]
        report = self.succeed_json("bench", "attention", *words)
        self.assertEqual([r["ranks"] for r in report["results"]], [1, 2])
        self.assertTrue(report["results"][1]["exchange"])


class Progress(ProgramTest):
    def test_a_line_a_second_until_it_is_stopped(self) -> None:
        model = self.save(product())
        many = 1000000
        for words, says in (
            (["run", model, "--warmup", many], "warming up"),
            (["bench", model, "--runs", many], "timing"),
            (["bench", "collectives", "--operation", "all_reduce", "--size", "1K", "--runs", many], "timing all_reduce of 1024 bytes"),
            (["bench", "attention", "--sequence", 8, "--heads", 2, "--runs", many], "timing attention over 1 rank"),
        ):
            with Running(self, *words) as running:
                seen = []
                for line in running.process.stderr:
                    seen.append(line)
                    if re.fullmatch(rf"tandem: {says} \d+%\n", line):
                        break
                else:
                    self.fail(f"{words}: {seen}")
                running.process.send_signal(signal.SIGINT)
                self.assertEqual(running.end()[0], 130, words)

    def test_quiet(self) -> None:
        done = self.run_program("bench", self.save(product()), "--runs", 3, "--log-level", "off")
        self.assertEqual(done.stderr, "")


class Doctor(ProgramTest):
    def test_report(self) -> None:
        report = self.succeed_json("doctor")
        self.assertGreaterEqual(report["cores"], 1)
        self.assertIn("cpu", report["devices"])
        for library in report["libraries"]:
            self.assertTrue(library["path"] or library["how_to_get"], library)
        self.assertIn("cores", self.succeed("doctor"))

    def test_output_is_all_on_stdout(self) -> None:
        done = subprocess.run([TANDEM, "doctor"], capture_output=True, text=True, check=True)
        self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
