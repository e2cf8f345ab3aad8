"""ONNX's standard sharding annotations: read as placements, or refused by name."""

import unittest

import onnx
from program import ProgramTest, product


def annotate(model: onnx.ModelProto, placed: dict, devices: int = 2, name: str = "plan", stage: int | None = None) -> onnx.ModelProto:
    """Adds a configuration that places tensors at every node that has them: name → [(axis, shards)…], or (that, devices, groups)."""
    model.ir_version = 11
    model.configuration.add(name=name, num_devices=devices)
    for node in model.graph.node:
        of = node.device_configurations.add(configuration_id=name)
        if stage is not None:
            of.pipeline_stage = stage
        for tensor in dict.fromkeys([*node.input, *node.output]):
            if tensor not in placed:
                continue
            split, on, groups = placed[tensor] if isinstance(placed[tensor], tuple) else (placed[tensor], range(devices), {})
            spec = of.sharding_spec.add(tensor_name=tensor, device=list(on))
            for key, members in groups.items():
                spec.index_to_device_group_map.add(key=key, value=members)
            for axis, shards in split:
                spec.sharded_dim.add(axis=axis).simple_sharding.add(num_shards=shards)
    return model


# The plan that tensor parallelism makes, written down: columns of w1, rows of w2.
BY_COLUMNS = {"x": [], "w1": [(1, 2)], "h": [(-1, 2)], "r": [(1, 2)], "w2": [(0, 2)], "y": []}


class Annotations(ProgramTest):
    def inspect(self, model: onnx.ModelProto, *words: object) -> dict:
        return self.succeed_json("inspect", self.save(model), *words)

    def verified(self, *words: object) -> None:
        report = self.succeed_json("verify", self.folder / "model.onnx", *words)
        self.assertTrue(report["passed"], report)

    @staticmethod
    def split_weights(report: dict) -> dict:
        return {tuple(w["shape"]): w["axes"] for w in report["weights"]}

    def test_columns_then_rows(self) -> None:
        model = annotate(product(), BY_COLUMNS)
        model.graph.value_info.extend(onnx.shape_inference.infer_shapes(model).graph.value_info)
        for words in (["--mesh", "tp=2"], ["--mesh", "x=2", "--strategy", "x=explicit"]):
            report = self.inspect(model, *words)
            self.assertEqual([c["operation"] for c in report["collectives"]], ["all_reduce"])
            self.assertEqual(self.split_weights(report), {(8, 8): [words[1][:-2]]})
            self.assertEqual(report["notices"], [])
            self.verified(*words)

    def test_otherwise_than_the_strategy(self) -> None:
        # Rows of the first product instead: its result is a partial sum at once, and placed whole.
        report = self.inspect(annotate(product(), {"w1": [(0, 2)], "h": [], "w2": []}), "--mesh", "tp=2")
        self.assertEqual([c["operation"] for c in report["collectives"]], ["all_reduce"])
        self.assertEqual(self.split_weights(report), {(4, 16): ["tp"], (16, 8): []})
        self.verified("--mesh", "tp=2")

    def test_inputs_and_outputs(self) -> None:
        model = annotate(product(), {"x": [(0, 2)], "y": [(0, 2)]})
        report = self.inspect(model, "--mesh", "x=2", "--strategy", "x=explicit")
        self.assertEqual(report["collectives"], [])
        for port in (report["inputs"][0], report["outputs"][0]):
            self.assertIn("x", port["sharding"])
        self.verified("--mesh", "x=2", "--strategy", "x=explicit")
        # By hand goes before the file.
        report = self.inspect(model, "--mesh", "x=2", "--strategy", "x=explicit", "--io", "y=same")
        self.assertEqual([c["operation"] for c in report["collectives"]], ["all_gather"])

    def test_two_axes_and_groups(self) -> None:
        groups = {-1: [0, 2], -2: [1, 3]}  # columns over the last axis, the same along the first
        placed = {
            "x": ([(0, 2)], [-1, -2], {-1: [0, 1], -2: [2, 3]}),
            "w1": ([(1, 2)], [-1, -2], groups),
            "w2": ([(0, 2)], [-1, -2], groups),
        }
        report = self.inspect(annotate(product(), placed, 4), "--mesh", "dp=2,tp=2")
        self.assertEqual(self.split_weights(report), {(8, 8): ["tp"]})
        self.assertIn("dp", report["inputs"][0]["sharding"])
        self.verified("--mesh", "dp=2,tp=2")
        four = annotate(product(), {"x": [(0, 4)]}, 4)
        report = self.inspect(four, "--mesh", "a=2,b=2", "--strategy", "a=explicit,b=explicit")
        self.assertRegex(report["inputs"][0]["sharding"], "a.*b")
        self.verified("--mesh", "a=2,b=2", "--strategy", "a=explicit,b=explicit")

    def test_for_other_devices_they_are_left_aside(self) -> None:
        for words, count in ((["--mesh", "tp=4"], "not for 4 ranks"), ([], "not for 1 rank")):
            report = self.inspect(annotate(product(), BY_COLUMNS), *words)
            self.assertTrue(any("'plan' of 2 devices" in n and count in n for n in report["notices"]), report["notices"])

    def test_weights_by_hand(self) -> None:
        report = self.inspect(product(), "--mesh", "x=2", "--strategy", "x=explicit", "--io", "w1=1:x", "--io", "w2=0:x")
        self.assertEqual([c["operation"] for c in report["collectives"]], ["all_reduce"])
        self.verified("--mesh", "x=2", "--strategy", "x=explicit", "--io", "w1=1:x", "--io", "w2=0:x")
        self.refuse(
            "inspect",
            self.folder / "model.onnx",
            "--mesh",
            "x=2",
            "--strategy",
            "x=explicit",
            code="invalid_argument",
            says=["'x'", "--io"],
        )

    def test_refused_by_name(self) -> None:
        cases = [
            ({"w1": ([(1, 2)], [1, 0], {})}, "unsupported", ["'w1'", "2 blocks", "tp=2"]),
            ({"w1": ([], [0], {})}, "unsupported", ["'w1'", "1 of 2 devices"]),
            ({"w1": ([(1, 2)], [0, 2], {})}, "invalid_model", ["'w1'", "no device 2"]),
            ({"w1": [(2, 2)]}, "invalid_model", ["'w1'", "no axis 2"]),
            ({"w1": [(0, 3)]}, "invalid_model", ["'w1'", "3 shards"]),
            ({"w1": ([(1, 2)], [0, 1, 0], {})}, "invalid_model", ["'w1'", "list of 3 devices"]),
            ({"w1": ([(1, 2)], [0, 5], {5: [0, 1]})}, "unsupported", ["'w1'", "device 0", "several"]),
        ]
        for placed, code, says in cases:
            path = self.save(annotate(product(), placed))
            self.refuse("inspect", path, "--mesh", "tp=2", code=code, says=[*says, "first"], node=True)
        path = self.save(annotate(product(), {}, stage=1))
        self.refuse("inspect", path, "--mesh", "tp=2", code="unsupported", says=["stage 1", "first"], node=True)
        model = annotate(product(), {"w1": [(1, 2)]})
        model.graph.node[1].device_configurations[0].configuration_id = "other"
        self.refuse("inspect", self.save(model), "--mesh", "tp=2", code="invalid_model", says=["'other'", "middle"], node=True)
        model = annotate(product(), {"h": []})
        model.graph.node[1].device_configurations[0].sharding_spec[0].sharded_dim.add(axis=0).simple_sharding.add(num_shards=2)
        self.refuse("inspect", self.save(model), "--mesh", "tp=2", code="unsupported", says=["'h'", "same", "0:tp", "middle"], node=True)
        model = annotate(product(), {})
        model.graph.node[0].device_configurations[0].sharding_spec.add(tensor_name="nowhere")
        self.refuse("inspect", self.save(model), "--mesh", "tp=2", code="invalid_model", says=["'nowhere'", "first"], node=True)
        self.refuse(
            "inspect",
            self.save(annotate(annotate(product(), {}), {}, name="twin")),
            "--mesh",
            "tp=2",
            code="unsupported",
            says=["'plan'", "'twin'"],
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
