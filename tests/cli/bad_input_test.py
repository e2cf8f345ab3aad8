"""Bad input, one by one: the exit code, the words of the error, its JSON form."""

import json
import shutil
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper
from program import MODELS, ProgramTest, lookup, make_model, model_path, product, tensor
from safetensors.numpy import load_file, save_file


class BadModel(ProgramTest):
    def test_missing(self) -> None:
        for verb in ("run", "verify", "inspect", "bench"):
            self.refuse(verb, "none.onnx", code="io", says=["none.onnx", "No such file"])

    def test_folder(self) -> None:
        self.refuse("run", self.folder, code="io", says=["no regular file"])

    def test_corrupt(self) -> None:
        good = product().SerializeToString()
        for name, data in {"empty": b"", "text": b"this is no model at all", "half": good[: len(good) // 2]}.items():
            (self.folder / f"{name}.onnx").write_bytes(data)
            self.refuse("run", f"{name}.onnx", code="invalid_model", says=[f"{name}.onnx"])

    def test_unsupported_op(self) -> None:
        for domain, says in {"": "'ai.onnx'", "com.microsoft": "'com.microsoft'"}.items():
            node = helper.make_node("Mystery", ["x"], ["y"], "layer/odd", domain=domain)
            path = self.save(make_model([node], [tensor("x", [2])], [tensor("y", [2])], domains=("com.microsoft",)))
            error = self.refuse(
                "run",
                path,
                code="unsupported",
                says=["Mystery", "layer/odd", says, "standard operators" if domain else "express it"],
                node=True,
            )
            self.assertEqual(error["node"], 'Mystery "layer/odd"')
            if not domain:
                self.assertIn("opset 17", error["message"])

    def test_opset_out_of_range(self) -> None:
        for opset in (6, 25):
            node = helper.make_node("Abs", ["x"], ["y"], "a")
            path = self.save(make_model([node], [tensor("x", [2])], [tensor("y", [2])], opset=opset))
            self.refuse("run", path, code="unsupported", says=[f"opset {opset}", "7 to 24"])

    def external(self, location: str) -> str:
        """A model in the folder `inner` whose weights lie in another file."""
        model = product()
        for w in model.graph.initializer:
            w.ClearField("raw_data")
            w.data_location = TensorProto.EXTERNAL
            for key, value in {"location": location, "offset": "0", "length": str(4 * int(np.prod(w.dims)))}.items():
                w.external_data.add(key=key, value=value)
        (self.folder / "inner").mkdir(exist_ok=True)
        return str(self.save(model, "inner/model.onnx"))

    def test_external_data_missing(self) -> None:
        self.refuse("run", self.external("weights.bin"), code="io", says=["weights.bin", "w1"], node=True)

    def test_external_data_outside(self) -> None:
        (self.folder / "outside.bin").write_bytes(bytes(4096))
        for location in ("../outside.bin", str(self.folder / "outside.bin")):
            self.refuse("run", self.external(location), code="invalid_model", says=["w1", "outside"], node=True)

    def test_external_data_too_short(self) -> None:
        path = self.external("weights.bin")
        (self.folder / "inner/weights.bin").write_bytes(bytes(100))
        self.refuse("run", path, code="invalid_model", says=["weights.bin", "w1"], node=True)


class BadInputs(ProgramTest):
    def given(
        self,
        model: onnx.ModelProto,
        *more: object,
        code: str = "invalid_argument",
        says: list[str],
        node: bool = False,
        **arrays: np.ndarray,
    ) -> None:
        path = self.save(model)
        save_file(arrays, self.folder / "inputs.safetensors")
        self.refuse("run", path, "--inputs", "inputs.safetensors", "--outputs", "out.safetensors", *more, code=code, says=says, node=node)
        self.assertFalse((self.folder / "out.safetensors").exists())

    def test_wrong_dtype(self) -> None:
        for mesh in ([], ["--mesh", "dp=2"]):
            self.given(product(), *mesh, says=["'x'", "f64", "f32"], x=np.zeros((2, 8)))

    def test_wrong_names_and_counts(self) -> None:
        x = np.zeros((2, 8), np.float32)
        self.given(product(), says=["'x'", "missing"], z=x)
        self.given(product(), says=["no input 'z'"], x=x, z=x)

    def test_wrong_shape(self) -> None:
        self.given(product(), says=["'x'", "9", "8"], x=np.zeros((2, 9), np.float32))
        self.given(product(), says=["'x'", "[2,2,8]"], x=np.zeros((2, 2, 8), np.float32))

    def test_shape_outside_the_profile(self) -> None:
        self.given(product(), "--shape", "x=1x8:2x8:4x8", says=["rows = 5", "1", "4"], x=np.zeros((5, 8), np.float32))

    def test_optimization_profiles_that_are_none(self) -> None:
        path = self.save(product())
        good, other = ["--shape", "x=1x8:2x8:4x8"], ["--shape", "x=8x8:16x8:32x8"]
        for text, says in {"x=4x8:2x8:8x8": "4:2:8", "x=2x9": "9"}.items():
            self.refuse("run", path, *good, "--shape", text, code="invalid_argument", says=["optimization profile 1", says])
        self.refuse("run", path, *good, "--shape", "nothing=2x8", code="invalid_argument", says=["nothing"])
        self.refuse("run", path, *good, *other, "--use-profile", 2, code="invalid_argument", says=["profile 2", "0 to 1"])
        self.refuse("run", path, *good, *other, "--use-profile", -1, code="invalid_argument", says=["profile -1"])
        self.given(product(), *good, *other, says=["rows = 5", "1 … 4", "8 … 32"], x=np.zeros((5, 8), np.float32))
        self.assertEqual(self.run_program("run", path, *good, *other, *good, "--shape", "z=1", "--shape", "z=2").returncode, 2)

    def test_shapes_that_are_none(self) -> None:
        for text, says in {
            "x=1x8:2x8": "1x8:2x8",
            "x=axb": "axb",
            "x=2x8x1": "'x'",
            "x=4x8:2x8:1x8": "4",
            "nothing=2x8": "nothing",
            "x=2x9": "9",
        }.items():
            self.refuse("run", self.save(product()), "--shape", text, code="invalid_argument", says=[says])

    def test_an_index_outside_the_table(self) -> None:
        for isolate in ("processes", "threads"):
            self.given(lookup(), "--isolate", isolate, says=["embedding/lookup", "6", "rank 0"], node=True, ids=np.array([1, 6]))

    def test_files_that_are_none(self) -> None:
        path = self.save(product())
        (self.folder / "broken").write_bytes(b"nothing of use in here")
        self.refuse("run", path, "--inputs", "none", code="io", says=["none"])
        self.refuse("run", path, "--inputs", "broken", code="invalid_argument", says=["broken"])
        self.refuse("run", path, "--input", "x=broken", code="invalid_argument", says=["broken", "NUMPY"])
        np.save(self.folder / "fortran.npy", np.asfortranarray(np.zeros((2, 8), np.float32)))
        self.refuse("run", path, "--input", "x=fortran.npy", code="unsupported", says=["fortran.npy", "ascontiguousarray"])

    def test_outputs_that_cannot_be_written(self) -> None:
        self.refuse("run", self.save(product()), "--outputs", "no/such/folder/out.safetensors", code="io", says=["no/such/folder"])
        self.refuse("run", self.save(product()), "--trace", "no/such/folder/trace.json", code="io", says=["no/such/folder"])
        self.refuse("inspect", self.save(product()), "--html", "no/such/folder/page.html", code="io", says=["no/such/folder"])
        (self.folder / "taken").mkdir()  # fails at the very end: what was written beside it goes
        self.refuse("run", self.save(product()), "--trace", "taken", code="io", says=["taken"])
        self.assertEqual([path.name for path in self.folder.glob("*.part")], [])


class BadCases(ProgramTest):
    def verify(self, change, *more: object) -> tuple[int, dict]:
        path = self.save(product())
        save_file({"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)}, self.folder / "in.safetensors")
        self.succeed("run", path, "--inputs", "in.safetensors", "--outputs", "out.safetensors")
        cases = {
            "case0.input.x": load_file(self.folder / "in.safetensors")["x"],
            "case0.output.y": load_file(self.folder / "out.safetensors")["y"].copy(),
        }
        change(cases)
        save_file(cases, self.folder / "cases.safetensors")
        done = self.run_program("verify", path, "--cases", "cases.safetensors", "--json", *more)
        return done.returncode, json.loads(done.stdout)

    def test_as_recorded(self) -> None:
        code, report = self.verify(lambda _: None, "--mesh", "tp=2")
        self.assertEqual((code, report["passed"]), (0, True), report)

    def test_nan_positions(self) -> None:
        def change(cases: dict) -> None:
            cases["case0.output.y"][1, 3] = np.nan

        code, report = self.verify(change, "--mesh", "tp=2")
        self.assertEqual((code, report["passed"]), (1, False))
        bad = [o for o in report["results"][0]["outputs"] if not o["passed"]]
        self.assertEqual([(o["name"], o["note"]) for o in bad], [("y", "NaN positions differ")])

    def test_other_numbers(self) -> None:
        def change(cases: dict) -> None:
            cases["case0.output.y"][0, 0] += 1

        code, report = self.verify(change, "--mesh", "dp=2")
        self.assertEqual(code, 1)
        self.assertGreater(max(o["absolute"] for o in report["results"][0]["outputs"]), 0.9)

    def test_a_reference_of_zeros_shows_nothing(self) -> None:
        path = self.save(product())
        zeros = {"case0.input.x": np.zeros((2, 8), np.float32), "case0.output.y": np.zeros((2, 8), np.float32)}
        save_file(zeros, self.folder / "cases.safetensors")
        done = self.run_program("verify", path, "--cases", "cases.safetensors", "--mesh", "tp=2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("zero", done.stdout)

    def test_names_that_are_none(self) -> None:
        path = self.save(product())
        for name in ("x", "case0.x", "case0.rank7.input.x"):
            save_file({name: np.zeros((2, 8), np.float32)}, self.folder / "cases.safetensors")
            code = "mismatch" if "rank" in name else "invalid_argument"
            self.refuse("verify", path, "--cases", "cases.safetensors", code=code, says=[name])


class BadMesh(ProgramTest):
    def test_unknown_axis(self) -> None:
        error = self.refuse(
            "run", self.save(product()), "--mesh", "zz=2", code="invalid_argument", says=["'zz'", "tp, cp, dp", "--strategy"]
        )
        self.assertNotIn("rank", error)

    def test_meshes_that_are_none(self) -> None:
        for mesh in ("tp", "tp=", "tp=0", "tp=-2", "tp=2,tp=2", "=2", "tp=two", "tp=99999999999"):
            self.refuse("run", self.save(product()), "--mesh", mesh, code="invalid_argument", says=[])

    def test_mesh_that_does_not_fit_the_ranks(self) -> None:
        self.refuse(
            "run", self.save(product()), "--mesh", "tp=2", "--ranks", "3", code="invalid_argument", says=["mesh tp=2", "2 ranks", "3"]
        )

    def test_sharded_for_another_number_of_ranks(self) -> None:
        path = model_path("sharded_context_fused2")
        self.refuse("run", path, code="invalid_argument", says=["sharded already", "--ranks"])

    def test_nodes_for_another_number_of_ranks(self) -> None:
        for name, node, written, ranks in (
            ("collective_all_reduce_sum", "DistCollective_y", 4, 2),
            ("sharded_attention", "attention_0", 2, 3),  # nb_rank
            ("sharded_attention_nbRanks", "attention_0", 2, 4),
            ("sharded_context_fused2", "shard_3", 2, 4),
        ):
            for verb in (["run"], ["build", "-o", "e.tandem"]):
                error = self.refuse(
                    *verb, model_path(name), "--ranks", ranks, code="mismatch", says=[f"for {written} ranks", f"run on {ranks}"], node=True
                )
                self.assertIn(node, error["node"])
        self.assertFalse((self.folder / "e.tandem").exists())

    def test_files_per_rank_with_another_number_of_ranks(self) -> None:
        for rank in range(4):  # more files than the nodes say ranks
            shutil.copy(model_path(f"sharded_mlp_rank{rank % 2}"), self.folder / f"mlp{rank}.onnx")
        for ranks in (3, 4):
            error = self.refuse(
                "run", "mlp{rank}.onnx", "--ranks", ranks, code="mismatch", says=["for 2 ranks", f"run on {ranks}"], node=True
            )
            self.assertIn("DistCollective_summed", error["node"])
            self.assertEqual(error["rank"], 0)
        self.succeed("run", "mlp{rank}.onnx", "--ranks", 2)
        # A group of the last two ranks of four, run on two.
        path = str(MODELS / "collective_subgroup_all_gather_rank{rank}.onnx").replace("rank{rank}", "rank3")
        shutil.copy(path, self.folder / "all0.onnx")
        shutil.copy(path, self.folder / "all1.onnx")
        self.refuse("run", "all{rank}.onnx", "--ranks", 2, code="mismatch", says=["names rank 2", "run on 2 ranks"], node=True)

    def test_heads_that_do_not_divide(self) -> None:
        error = self.refuse("run", model_path("llama_legacy"), "--mesh", "tp=3", code="unsupported", says=["heads", "3"], node=True)
        self.assertIn("tp", error["message"])

    def test_nothing_to_split(self) -> None:
        node = helper.make_node("Abs", ["x"], ["y"], "a")
        path = self.save(make_model([node], [tensor("x", [4])], [tensor("y", [4])]))
        self.refuse("run", path, "--mesh", "tp=2", code="unsupported", says=["tp"])

    def test_more_ranks_than_cores_work(self) -> None:
        report = self.succeed_json("verify", self.save(product()), "--mesh", "tp=8", "--mesh", "dp=8")
        self.assertTrue(report["passed"], report)


class BadUsage(ProgramTest):
    def test_exit_code_is_two(self) -> None:
        model = model_path("mlp_legacy")
        for words in (
            [],
            ["nonsense"],
            ["run"],
            ["run", model, "--nonsense"],
            ["run", model, "--deadline", "0.5"],
            ["run", model, "--threads", "0"],
            ["run", model, "--ranks", "0"],
            ["run", model, "--device", "abacus"],
            ["run", model, "--isolate", "nothing"],
            ["run", model, "--input", "no-equals-sign"],
            ["run", model, "--shape", "no-equals-sign"],
            ["run", model, "--strategy", "tp=zz"],
            ["run", model, "--strategy", "auto"],
            ["run", model, "--strategy", "tp", "--mesh", "tp=2"],
            ["run", model, "--dtype", "f64"],
            ["run", model, "--io", "no-equals-sign"],
            ["bench", model, "--runs", "0"],
            ["launch"],
            ["launch", "--ranks", "2", "--", "program", "--help"],
        ):
            done = self.run_program(*words)
            self.assertEqual(done.returncode, 2, (words, done.stderr))
            self.assertEqual(done.stdout, "", words)
            self.assertIn("--help", done.stderr, words)
            if words:
                done = self.run_program(*words, "--json")
                self.assertEqual(done.returncode, 2, (words, done.stderr))
                self.assertIn('"code":"usage"', done.stdout)

    def test_what_only_other_devices_have(self) -> None:
        model = model_path("mlp_legacy")
        for words, says in (
            (["run", model, "--device", "cuda"], ["--device", "'cuda'", "CPU ranks only"]),
            (["run", model, "--no-pdl"], ["--no-pdl", "GPU ranks", "CPU ranks only"]),
            (["build", model, "-o", "e.tandem", "--target", "sm_90a"], ["--target", "'sm_90a'", "CPU ranks only: cpu"]),
            (["launch", "--nnodes", "2", "--", "python", "train.py"], ["launch", "does not exist yet", "tandem run"]),
        ):
            self.refuse(*words, code="usage", says=says, exit_code=2)

    def test_weight_budget_is_for_gpus(self) -> None:
        model = model_path("mlp_legacy")
        for verb in ("run", "bench"):
            self.refuse(verb, model, "--weight-budget", "4GB", code="unsupported", says=["weight budget", "GPUs", "CPU"])
            self.refuse(verb, model, "--weight-budget", "much", code="usage", says=["--weight-budget", "'much'"], exit_code=2)

    def test_engine_is_not_made_exact_afterwards(self) -> None:
        self.succeed("build", model_path("mlp_legacy"), "-o", "e.tandem", "--no-timing", "--target", "cpu")
        self.refuse("run", "e.tandem", "--exact", code="usage", says=["e.tandem", "--exact", "tandem build"], exit_code=2)

    def test_tf32_is_part_of_a_build(self) -> None:
        model = model_path("mlp_legacy")
        self.refuse("build", model, "-o", "e.tandem", "--exact", "--tf32", code="invalid_argument", says=["exact", "TF32"])
        self.refuse("verify", model, "--exact", "--tf32", code="invalid_argument", says=["exact", "TF32"])
        self.succeed("build", model, "-o", "e.tandem", "--no-timing", "--target", "cpu")
        self.refuse("run", "e.tandem", "--tf32", code="usage", says=["e.tandem", "--tf32", "tandem build"], exit_code=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
