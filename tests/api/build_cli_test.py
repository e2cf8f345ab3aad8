"""tandem build, refit and engines as arguments of the other verbs: what they print, what they refuse, and that no half file stays.

TANDEM=build/cpu/bin/tandem python tests/api/build_cli_test.py
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

MODELS = Path(__file__).resolve().parent.parent / "models"
TANDEM = os.environ.get("TANDEM", str(MODELS.parent.parent / "build/cpu/bin/tandem"))
LIMIT = 120  # seconds, only to end what hangs


class EngineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tandem-build-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def call(self, *words: object, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run([TANDEM, *map(str, words)], capture_output=True, text=True, timeout=LIMIT, check=False, **options)

    def succeed(self, *words: object) -> dict:
        done = self.call(*words, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def refuse(self, *words: object, says: str, code: int = 1) -> None:
        done = self.call(*words)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(says, done.stderr)
        self.assertEqual(done.stdout, "")

    def build(self, model: str, name: str, *words: object) -> Path:
        engine = self.folder / name
        report = self.succeed("build", MODELS / f"{model}.onnx", "-o", engine, *words)
        self.assertEqual(report["bytes"], engine.stat().st_size)
        return engine

    def outputs(self, *words: object) -> dict[str, np.ndarray]:
        path = self.folder / "out.safetensors"
        self.succeed("run", *words, "--outputs", path)
        return load_file(path)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Build(EngineTest):
    def test_an_engine_runs_like_its_model(self) -> None:
        engine = self.build("bert_legacy", "bert.tandem", "--mesh", "tp=2", "--no-timing")
        from_engine = self.outputs(engine)
        from_model = self.outputs(MODELS / "bert_legacy.onnx", "--mesh", "tp=2")
        for name, array in from_model.items():
            np.testing.assert_array_equal(from_engine[name], array)
        check = self.succeed("verify", engine, "--cases", MODELS / "bert_legacy.safetensors")
        self.assertTrue(check["passed"])
        self.assertEqual(check["results"][0]["mesh"], "tp=2")
        self.assertGreater(self.succeed("bench", engine, "--runs", "3")["median_ms"], 0)

    def test_inspect_tells_what_is_in_the_file(self) -> None:
        engine = self.build("bert_legacy", "bert.tandem", "--mesh", "tp=2")
        report = self.succeed("inspect", engine)
        self.assertEqual((report["mesh"], report["world_size"], report["has_weights"]), ("tp=2", 2, True))
        self.assertEqual(len(report["collectives"]), 5)  # two per layer, one for the split vocabulary
        for use in report["collectives"]:
            self.assertEqual((use["operation"], use["axis"]), ("all_reduce", "tp"))
            self.assertTrue(use["note"])
            self.assertIn(report["steps"][use["step"]]["op"], ("AllReduce", "AllReduceAddLayerNorm"))
        held = sum(weight["bytes"] for weight in report["weights"])
        self.assertEqual([rank["weight_bytes"] for rank in report["ranks"]], [held, held])
        page = self.folder / "report.html"
        self.assertEqual(self.call("inspect", engine, "--html", page).returncode, 0)
        text = page.read_text(encoding="utf-8")
        for word in ["all_reduce sum", "sent by a rank", "</html>", report["steps"][3]["node"]]:
            self.assertIn(word, text)

    def test_the_safetensors_package_lists_slices(self) -> None:
        engine = self.build("bert_legacy", "bert.tandem", "--mesh", "tp=2")
        with safe_open(engine, "np") as file:
            names = set(file.keys())
            self.assertEqual(file.metadata()["tandem.mesh"], "tp=2")
            slices = [name for name in names if name.endswith("@tp=0")]
            self.assertTrue(slices)
            for name in slices:
                self.assertIn(name.replace("@tp=0", "@tp=1"), names)

    def test_wrong_use(self) -> None:
        engine = self.build("mlp_legacy", "mlp.tandem", "--mesh", "dp=2")
        self.refuse("build", engine, "-o", self.folder / "b.tandem", says="is an engine already")
        self.refuse("build", MODELS / "mlp_legacy.onnx", says="--output", code=2)
        self.refuse("run", engine, "--mesh", "dp=4", says="built for mesh dp=2, asked for is dp=4")
        self.refuse("run", engine, "--ranks", "3", says="built for 2 ranks, asked for are 3")
        self.refuse("run", engine, "--shape", "x=1x8", says="to `tandem build`", code=2)
        self.refuse("verify", engine, says="give them with --cases")
        self.refuse("build", MODELS / "mlp_legacy.onnx", "-o", self.folder / "no" / "where.tandem", says="cannot write")
        self.refuse("build", MODELS / "mlp_legacy.onnx", "-o", self.folder, says="cannot write")
        self.refuse("build", MODELS / "absent.onnx", "-o", self.folder / "c.tandem", says="absent.onnx")
        damaged = bytearray(engine.read_bytes())
        damaged[100] ^= 4
        (self.folder / "mlp.tandem").write_bytes(damaged)
        self.refuse("run", engine, says="mlp.tandem: ")
        self.assertEqual(self.files(), ["mlp.tandem"])


class Timing(EngineTest):
    def setUp(self) -> None:
        super().setUp()
        self.engine = self.build("bert_legacy", "bert.tandem", "--mesh", "tp=2", "--no-timing")
        self.cache = self.folder / "times.json"

    def test_engines_and_models_are_timed_when_that_is_asked_for(self) -> None:
        words = ["--timing", "--timing-cache", self.cache, "--threads", 1]
        plain = self.outputs(self.engine)
        self.assertEqual(self.files(), ["bert.tandem", "out.safetensors"])
        timed = self.outputs(self.engine, *words)
        for name, array in plain.items():
            np.testing.assert_allclose(timed[name], array, atol=1e-4)
        cache = json.loads(self.cache.read_text())
        self.assertTrue(cache["microseconds"])
        # What is known is not measured again: by another isolation, another verb, or a build.
        for name, array in self.outputs(self.engine, *words, "--isolate", "threads").items():
            np.testing.assert_array_equal(array, timed[name])
        self.assertTrue(self.succeed("verify", self.engine, *words, "--cases", MODELS / "bert_legacy.safetensors")["passed"])
        self.assertGreater(self.succeed("bench", self.engine, *words, "--runs", 3)["median_ms"], 0)
        for name, array in self.outputs(MODELS / "bert_legacy.onnx", "--mesh", "tp=2", *words).items():
            np.testing.assert_array_equal(array, timed[name])
        self.assertEqual(json.loads(self.cache.read_text()), cache)

    def test_wrong_use(self) -> None:
        self.refuse("run", self.engine, "--timing-cache", self.cache, says="--timing", code=2)
        self.cache.write_text("thesis")
        for verb in ("run", "bench"):
            self.refuse(verb, self.engine, "--timing", "--timing-cache", self.cache, says=f"{self.cache} is no timing cache")
        self.assertEqual(self.cache.read_text(), "thesis")
        bare = self.build("bert_legacy", "bare.tandem", "--mesh", "tp=2", "--no-weights", "--no-timing")
        self.refuse("run", bare, "--timing", says="bare.tandem was written without weights; give it some with tandem refit")


class Refit(EngineTest):
    def test_a_stripped_engine_waits_for_its_weights(self) -> None:
        model = MODELS / "bert_legacy.onnx"
        bare = self.build("bert_legacy", "bare.tandem", "--mesh", "tp=2", "--no-weights", "--no-timing")
        self.assertFalse(self.succeed("inspect", bare)["has_weights"])
        self.refuse("run", bare, says="was written without weights")
        engine = self.folder / "full.tandem"
        self.assertGreater(self.succeed("refit", bare, "--weights", model, "-o", engine)["refitted"], 0)
        expected = self.outputs(model, "--mesh", "tp=2")
        for name, array in self.outputs(engine).items():
            np.testing.assert_array_equal(array, expected[name])

    def test_weights_that_do_not_fit(self) -> None:
        engine = self.build("mlp_legacy", "mlp.tandem", "--mesh", "dp=2", "--refittable")
        weights = self.folder / "w.safetensors"
        save_file({"stranger": np.zeros(3, np.float32)}, weights)
        out = self.folder / "out.tandem"
        self.refuse("refit", engine, "--weights", weights, "-o", out, says="none of the 1 tensors given")
        self.refuse("refit", engine, "--weights", self.folder / "absent", "-o", out, says="absent")
        self.refuse("refit", weights, "--weights", weights, "-o", out, says="not an engine")
        self.assertEqual(self.files(), ["mlp.tandem", "w.safetensors"])


class HalfFiles(EngineTest):
    def test_a_full_disk_is_an_error_and_leaves_the_old_file(self) -> None:
        engine = self.folder / "e.tandem"
        engine.write_text("old")
        full = subprocess.run(
            [TANDEM, "build", str(MODELS / "bert_legacy.onnx"), "-o", str(engine)],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)),
        )
        self.assertEqual(full.returncode, 1, full.stderr)
        self.assertIn("cannot write", full.stderr)
        self.assertEqual(engine.read_text(), "old")
        self.assertEqual(self.files(), ["e.tandem"])

    def test_a_signal_at_any_time_leaves_the_old_file_or_the_new_one(self) -> None:
        engine = self.folder / "e.tandem"
        command = [TANDEM, "build", str(MODELS / "gpt2_legacy.onnx"), "-o", str(engine), "--mesh", "tp=2"]
        begin = time.monotonic()
        self.assertEqual(subprocess.run(command, capture_output=True, timeout=LIMIT, check=False).returncode, 0)
        whole = time.monotonic() - begin
        ends = set()
        for i, number in enumerate([signal.SIGINT, signal.SIGTERM] * 5):
            engine.write_text("old")
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(whole * i / 9)
            process.send_signal(number)
            status = process.wait(LIMIT)
            ends.add(status)
            self.assertEqual(self.files(), ["e.tandem"])
            # Before main() has begun, the signal itself ends the process.
            self.assertIn(status, [0, 128 + number, -number])
            self.assertEqual(engine.read_bytes()[:3] == b"old", status != 0)
        self.assertGreater(len(ends), 1, "no signal came in time")


if __name__ == "__main__":
    unittest.main()
