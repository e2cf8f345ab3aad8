"""Caches under cp that are updated otherwise than by Concat(past, new): the same function, with a notice where a cache stays whole."""

import unittest

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from program import ProgramTest, make_model, tensor, weight

HEADS, SIZE = 2, 4
WIDTH = HEADS * SIZE


def numbers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def node(kind: str, inputs: list[str], output: str, **attributes: object):
    return helper.make_node(kind, inputs, [output], output, **attributes)


def in_front(past: str, new: str, out: str) -> list:
    return [node("Concat", [new, past], out, axis=2)]


def window(past: str, new: str, out: str) -> list:
    """The oldest row goes."""
    return [node("Concat", [past, new], out + "_all", axis=2), node("Slice", [out + "_all", "one", "end", "two"], out)]


def on_both_sides(past: str, new: str, out: str) -> list:
    return [node("Concat", [past, new, past], out, axis=2)]


def written(past: str, new: str, out: str) -> list:
    """New rows over the first ones of a cache of fixed size: exporters write an index_copy like this."""
    shapes = [node("Shape", [new], out + "_shape"), node("Gather", [out + "_shape", "two0"], out + "_rows")]
    rows = [node("Range", ["zero0", out + "_rows", "one0"], out + "_range"), node("Unsqueeze", [out + "_range", "one"], out + "_at")]
    turned = [node("Transpose", [name], name + "_t" + out, perm=[2, 0, 1, 3]) for name in (past, new)]
    update = node("ScatterND", [f"{past}_t{out}", out + "_at", f"{new}_t{out}"], out + "_t")
    return [*shapes, *rows, *turned, update, node("Transpose", [out + "_t"], out, perm=[1, 2, 0, 3])]


def model(update) -> ModelProto:
    """Attention of x's rows to a cache that `update` makes of the past and of x."""
    nodes, kind = [], {"q": "q", "k": "new_k", "v": "new_v"}
    for letter, made in kind.items():
        nodes.append(node("MatMul", ["x", "w" + letter], letter + "_flat"))
        nodes.append(node("Reshape", [letter + "_flat", "split"], letter + "_heads"))
        nodes.append(node("Transpose", [letter + "_heads"], made, perm=[0, 2, 1, 3]))
    for letter in "kv":
        nodes += update("past_" + letter, "new_" + letter, letter)
    nodes.append(node("Attention", ["q", "k", "v"], "y"))
    constants = [numbers("split", 0, 0, HEADS, SIZE), numbers("one", 1), numbers("two", 2), numbers("end", 2**31)]
    scalars = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("zero0", 0), ("one0", 1), ("two0", 2))]
    weights = [weight("w" + letter, WIDTH, WIDTH) for letter in kind]
    past = [tensor("past_" + letter, [1, HEADS, "past", SIZE]) for letter in "kv"]
    outputs = [tensor("y", [1, HEADS, "rows", SIZE]), *(tensor(letter, [1, HEADS, None, SIZE]) for letter in "kv")]
    return make_model(nodes, [tensor("x", [1, "rows", WIDTH]), *past], outputs, (*constants, *scalars, *weights), opset=23)


class Caches(ProgramTest):
    def check(self, update, notice: str, shapes: tuple[tuple[int, int], ...] = ((1, 7), (3, 8), (6, 2))) -> None:
        path = self.save(model(update))
        for rows, past in shapes:
            fixed = ["--shape", f"x=1x{rows}x{WIDTH}", *(word for c in "kv" for word in ("--shape", f"past_{c}=1x{HEADS}x{past}x{SIZE}"))]
            report = self.succeed_json("verify", path, "--mesh", "cp=2", "--mesh", "cp=3", *fixed)
            self.assertTrue(report["passed"], (rows, past, report))
            for result in report["results"]:
                self.assertEqual(len(result["outputs"]), 3)  # y, and both caches
                said = f"{notice}: it is not Concat(past, new), so the cache is whole on every rank of cp"
                self.assertIn(said, result["notices"], (rows, past))

    def test_new_rows_in_front(self) -> None:
        self.check(in_front, 'Concat "k"')

    def test_window(self) -> None:
        self.check(window, 'Slice "k"')

    def test_new_rows_in_the_middle(self) -> None:
        self.check(on_both_sides, 'Concat "k"')

    def test_written_into_a_cache_of_fixed_size(self) -> None:
        self.check(written, 'ScatterND "k_t"', shapes=((1, 7), (3, 8), (2, 2)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
