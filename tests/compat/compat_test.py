"""Engine files of every format that was ever written load and give the recorded outputs; today's format is among them."""

import sys
import unittest
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "cli"))
from program import ProgramTest, model_path  # noqa: E402

STORED = sorted(FOLDER.glob("format*.tandem"))


def format_of(path: Path) -> str:
    with safe_open(path, "np") as file:
        return file.metadata()["tandem.format"]


class StoredEngines(ProgramTest):
    def test_give_the_recorded_outputs(self) -> None:
        self.assertTrue(STORED)
        for engine in STORED:
            cases = load_file(engine.with_suffix(".safetensors"))
            count = 1 + max(int(key.split(".")[0].removeprefix("case")) for key in cases)
            self.assertGreaterEqual(count, 2)
            for case in range(count):
                inputs = {key.split(".", 2)[2]: array for key, array in cases.items() if key.startswith(f"case{case}.input.")}
                save_file(inputs, self.folder / "in.safetensors")
                for isolate in ("processes", "threads"):
                    self.succeed("run", engine, "--inputs", "in.safetensors", "--outputs", "out.safetensors", "--isolate", isolate)
                    got = load_file(self.folder / "out.safetensors")
                    self.assertEqual(set(got), {key.split(".", 2)[2] for key in cases if key.startswith(f"case{case}.output.")})
                    for name, array in got.items():
                        wanted = cases[f"case{case}.output.{name}"]
                        self.assertEqual((array.dtype, array.shape), (wanted.dtype, wanted.shape))
                        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{engine.name} case {case} {name}")

    def test_can_be_inspected(self) -> None:
        for engine in STORED:
            report = self.succeed_json("inspect", engine)
            self.assertEqual((report["world_size"], report["mesh"]), (2, "tp=2"))
            self.assertEqual([c["operation"] for c in report["collectives"]], ["all_reduce", "all_reduce"])

    def test_of_the_format_that_their_name_says(self) -> None:
        for engine in STORED:
            self.assertEqual(f"format{format_of(engine)}", engine.stem)

    def test_of_todays_format_too(self) -> None:
        self.succeed("build", model_path("mlp_legacy"), "-o", "new.tandem", "--no-timing")
        self.assertIn(
            f"format{format_of(self.folder / 'new.tandem')}", [engine.stem for engine in STORED], "store one: tests/compat/README.md"
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
