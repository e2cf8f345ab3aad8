"""Networks built in Python: a method per op, operators, arrays as weights, programs of one rank, and what is refused."""

import inspect
import keyword
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tandem
from tandem import _core

ROOT = Path(__file__).resolve().parents[2]
random = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return random.standard_normal(shape, dtype=np.float32)


def run(net: tandem.Network, mesh=None, **inputs) -> dict:
    with tandem.load(net.build(mesh=mesh), threads=1) as model:
        return model(inputs)


def test_the_file_of_methods_is_what_the_list_of_ops_gives():
    command = [sys.executable, ROOT / "tools" / "python_ops.py", "--check"]
    assert subprocess.run(command, check=False).returncode == 0, (
        "python/tandem/ops.py is stale; renew it: PYTHONPATH=build/cpu/python tools/python_ops.py"
    )


@pytest.mark.parametrize("op", _core.list_ops(), ids=lambda op: op.name)
def test_every_op_is_a_method_with_its_arguments(op):
    method = getattr(tandem.Network, op.method + "_" * keyword.iskeyword(op.method))
    assert method.__doc__
    parameters = inspect.signature(method).parameters
    if op.name == "Constant":
        assert list(parameters) == ["self", "value", "dtype", "copy"]
        return
    assert list(parameters) == ["self", *(o.name for o in op.operands), *(a.name for a in op.attributes), "name"]
    for attribute in op.attributes:
        default = parameters[attribute.name].default
        if attribute.name == "num_ranks" or attribute.kind == "tensor" or (op.name, attribute.name) == ("Attention", "scale"):
            assert default is None
        else:
            assert default == (tuple(attribute.initial) if isinstance(attribute.initial, list) else attribute.initial)
        assert attribute.name in method.__doc__


@pytest.mark.parametrize("mesh", [None, {"tp": 2}, {"dp": 2}, tandem.Mesh(dp=2, tp=2)])
def test_an_mlp_gives_what_numpy_gives(mesh):
    up, down, x = floats(8, 16), floats(16, 8), floats(6, 8)
    net = tandem.Network()
    value = net.input("x", np.float32, ["B", 8])
    net.output("y", net.relu(value @ net.weight("up", up)) @ net.weight("down", down) + value)
    want = np.maximum(x.astype(np.float64) @ up, 0) @ down + x
    np.testing.assert_allclose(run(net, mesh, x=x)["y"], want, rtol=1e-4, atol=1e-4)


def test_operators_are_those_of_numpy():
    a, b = floats(3, 4), np.abs(floats(3, 4)) + 0.5
    m, flags = floats(4, 2), np.array([True, False, True, False])
    table = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b, "pow": lambda a, b: b**a,
        "radd": lambda a, b: 2 + a, "rsub": lambda a, b: 1 - a, "rmul": lambda a, b: np.float32(3) * a, "rdiv": lambda a, b: 1 / b, "square": lambda a, b: a**2,
        "matmul": lambda a, b: a @ m, "rmatmul": lambda a, b: m.T @ (a * 1).T if isinstance(a, np.ndarray) else m.T @ net.transpose(a, [1, 0]),
        "array": lambda a, b: m[:, 0] + a, "neg": lambda a, b: -a, "abs": lambda a, b: abs(a), "less": lambda a, b: a < b, "at_least": lambda a, b: a >= 0.25,
        "both": lambda a, b: (a < b) & flags, "not": lambda a, b: ~(a > b), "mod": lambda a, b: b % 0.75,
    }  # fmt: skip
    net = tandem.Network()
    x, y = net.input("a", "f32", [3, 4]), net.input("b", "f32", [3, 4])
    for name, f in table.items():
        net.output(name, f(x, y))
    out = run(net, a=a, b=b)
    for name, f in table.items():
        want = f(a, b)
        assert out[name].dtype == want.dtype, name
        np.testing.assert_allclose(out[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


def test_arguments_become_attributes():
    x, index = floats(2, 3, 4), np.array([[1], [0]])
    net = tandem.Network()
    value = net.input("x", "f32", ["B", 3, 4])
    net.output("flat", net.reshape(value, ["B", -1]))
    net.output("turned", net.transpose(value, permutation=(2, 0, 1)))
    net.output("top", net.reduce(value, "max", axes=[-1], keepdims=False))
    net.output("half", net.cast(value, np.float16))
    net.output("rows", net.slice(value, [np.int64(1)], ends=[3], axes=[1]))
    net.output("both", net.concat([value, -value], axis=2))
    net.output("chosen", net.where(value > 0, value, 0))
    net.output("picked", net.gather(value, index, axis=1))
    net.output("shape", net.dim_value(["B", "2*B"], shape=[2]))
    net.output("count", net.cast(net.iota(extent="B"), "f32"))
    norm, total = net.add_rms_norm(value, value, np.ones(4, np.float32))
    net.output("norm", norm)
    net.output("total", total)
    net.output("three", net.constant([1, 2, 3], dtype="i64"))
    out = run(net, x=x)
    np.testing.assert_array_equal(out["flat"], x.reshape(2, -1))
    np.testing.assert_array_equal(out["turned"], x.transpose(2, 0, 1))
    np.testing.assert_array_equal(out["top"], x.max(-1))
    np.testing.assert_array_equal(out["half"], x.astype(np.float16))
    np.testing.assert_array_equal(out["rows"], x[:, 1:3])
    np.testing.assert_array_equal(out["both"], np.concatenate([x, -x], 2))
    np.testing.assert_array_equal(out["chosen"], np.where(x > 0, x, 0))
    np.testing.assert_array_equal(out["picked"], x[:, index])
    np.testing.assert_array_equal(out["shape"], [2, 4])
    np.testing.assert_array_equal(out["count"], [0, 1])
    np.testing.assert_allclose(out["norm"], 2 * x / np.sqrt((4 * x * x).mean(-1, keepdims=True) + 1e-5), rtol=1e-5)
    np.testing.assert_allclose(out["total"], 2 * x, rtol=1e-6)
    np.testing.assert_array_equal(out["three"], [1, 2, 3])


def test_arrays_are_shared_unless_a_copy_is_asked_for():
    shared, copied, packed, small = (np.ones((64, 64), np.float32) for _ in range(4))
    small = small[0]
    net = tandem.Network()
    x = net.input("x", "f32", [1, 64])
    net.output("shared", x @ net.weight("shared", shared))
    net.output("copied", x @ net.weight("copied", copied, copy=True))
    net.output("packed", x @ packed.T[::-1])
    net.output("small", x * small)
    for array in (shared, copied, packed, small):
        array[:] = 2
    ones = np.ones((1, 64), np.float32)
    out = run(net, x=ones)
    assert out["shared"][0, 0] == 128 and out["copied"][0, 0] == 64 and out["packed"][0, 0] == 64 and out["small"][0, 0] == 1


def test_memory_outlives_the_names_of_its_owners():
    def make() -> tandem.Engine:
        net = tandem.Network()
        net.output("y", net.input("x", "f32", [1, 64]) @ net.weight("w", np.full((64, 64), 3, np.float32)))
        return net.build()

    with tandem.load(make()) as model:
        assert model(x=np.ones((1, 64), np.float32))["y"][0, 0] == 192


def test_refit_finds_weights_by_name(tmp_path: Path):
    w = floats(8, 8)
    net = tandem.Network()
    net.output("y", net.input("x", "f32", [1, 8]) @ net.weight("layer.w", w))
    net.build(refittable=True).save(tmp_path / "e.tandem")
    assert [each["name"] for each in tandem.load_engine(tmp_path / "e.tandem").describe()["weights"]] == ["layer.w"]


@pytest.mark.parametrize("how", [{"axis": "tp"}, {"groups": [0, 1]}, {"groups": [[0, 1]]}, {"num_ranks": 2}, {}])
def test_collectives_give_each_rank_its_part(how):
    xs = [floats(2, 3), floats(2, 3)]
    net = tandem.Network(mesh={"tp": 2})
    x = net.input("x", "f32", [2, 3])
    words = ["all_reduce", "all_gather", "broadcast", "reduce", "reduce_scatter", "all_to_all", "gather", "scatter"]
    for word in words:
        net.output(word, net.dist_collective(x, word, root=1 if word in ("broadcast", "reduce", "gather", "scatter") else None, **how))
    out = run(net, x=xs)
    zeros = np.zeros_like(xs[0])
    want = {
        "all_reduce": [sum(xs)] * 2, "all_gather": [np.concatenate(xs)] * 2, "broadcast": [xs[1]] * 2, "reduce": [zeros, sum(xs)],
        "reduce_scatter": list(sum(xs)[:, None]), "all_to_all": [np.stack([x[r] for x in xs]) for r in range(2)],
        "gather": [np.concatenate([zeros, zeros]), np.concatenate(xs)], "scatter": [xs[1][:1], xs[1][1:]],
    }  # fmt: skip
    for word in words:
        np.testing.assert_allclose(out[word], want[word], rtol=1e-6, err_msg=word)


def test_the_program_of_one_rank_has_blocks():
    x, up, down = floats(4, 8), floats(8, 6), floats(6, 8)
    net = tandem.Network(mesh={"dp": 2, "tp": 2})
    value = net.input("x", "f32", ["B", 8], placement="0:dp")
    h = net.relu(value @ net.weight("up", up, placement="1:tp"))
    assert h.shape == ("ceildiv(B,2)", 3)
    net.output("y", net.all_reduce(h @ net.weight("down", down, placement="0:tp"), "tp"), placement="0:dp")
    assert net.mesh == tandem.Mesh(dp=2, tp=2)
    np.testing.assert_allclose(run(net, x=x)["y"], np.maximum(x @ up, 0) @ down, rtol=1e-4, atol=1e-5)


def test_num_ranks_may_be_set_after_the_result_was_taken():
    net = tandem.Network()
    x = net.input("x", "f32", [2, 3])
    gathered = net.all_gather(x, num_ranks=1)
    after = -gathered
    net.set_attribute(gathered, "num_ranks", 2)
    assert (gathered.shape, after.shape, net.attribute(gathered, "num_ranks"), gathered.op) == ((4, 3), (4, 3), 2, "AllGather")
    net.output("y", after)
    xs = [floats(2, 3), floats(2, 3)]
    np.testing.assert_array_equal(run(net, x=xs)["y"], [-np.concatenate(xs)] * 2)


def test_values_and_networks_say_what_they_are():
    net = tandem.Network()
    x = net.input("x", "i64", ["B", "past + 1"])
    assert repr(x) == "Value(x: i64[B,past+1])"
    assert (x.name, x.dtype, x.ndim, x.shape, x.op) == ("x", "i64", 2, ("B", "past+1"), "")
    net.output("y", x)
    assert net.inputs == [x] and net.outputs == {"y": x} and x in {x}
    assert repr(net) == "Network(x: i64[B,past+1] -> y)"
    assert 'return %x as "y"' in str(net)


def test_ranges_of_symbols():
    net = tandem.Network()
    assert net.symbol("B", 1, 2, 3) == "B"
    net.output("y", -net.input("x", "f32", ["B"]))
    assert run(net, x=floats(3))["y"].shape == (3,)
    with pytest.raises(tandem.Error, match="B = 4 is outside 1 … 3"):
        run(net, x=floats(4))


def refused(words: str, f) -> None:
    with pytest.raises(tandem.Error) as caught:
        f()
    assert words in str(caught.value), str(caught.value)
    assert caught.value.code == "invalid_argument"


def test_what_is_refused():
    net, other = tandem.Network(), tandem.Network()
    x, i = net.input("x", "f32", [2, 3]), net.input("i", "i64", [2])
    before = str(net)
    refused("[Softmax] attribute 'axis' is of kind integer, found str", lambda: net.softmax(x, axis="last"))
    refused('[Softmax "top"] axis 2 is outside rank 2', lambda: net.softmax(x, 2, name="top"))
    refused("cannot multiply f32[2,3] by f32[2,3]", lambda: x @ x)
    refused("[Add]", lambda: x + i)
    refused("belongs to another network", lambda: x + other.input("x", "f32", [2, 3]))
    refused("is 2.5", lambda: i + 2.5)
    refused("operand 'b' is of type object", lambda: net.add(x, object()))
    refused("operand 1 ('b') is absent", lambda: net.add(x, None))
    refused("a number beside no value", lambda: net.relu(1.0))
    refused("weight 'w' has elements of format", lambda: net.weight("w", np.array([1j])))
    refused("'f33'", lambda: net.cast(x, "f33"))
    refused("the name is taken", lambda: net.input("x", "f32", [1]))
    refused("the shape of input 'n'", lambda: net.input("n", "f32", 3))
    refused("negative extent", lambda: net.input("n", "f32", [-1]))
    refused("holds float", lambda: net.input("n", "f32", [1.5]))
    refused("is not ordered", lambda: net.symbol("B", 3, 2, 1))
    refused("needs a dtype", lambda: net.constant(1.0))
    refused("which ranks take part", lambda: net.all_reduce(x))
    refused("not in the network's mesh", lambda: net.all_reduce(x, "tp"))
    refused("there is no collective 'all_sum'", lambda: net.dist_collective(x, "all_sum"))
    refused("there is no attribute 'root'", lambda: net.dist_collective(x, "all_reduce", root=1, num_ranks=2))
    refused("has no mesh", lambda: net.input("p", "f32", [2], placement="0:tp"))
    refused("is known when the network runs", lambda: bool(x))
    refused("is an input or a weight", lambda: net.set_attribute(x, "axis", 1))
    refused("no outputs", net.build)
    with pytest.raises(TypeError):
        net.softmax(x, axes=1)
    assert str(net) == before


def test_a_network_may_grow_while_it_is_built():
    net = tandem.Network()
    x = net.input("x", "f32", [4])
    net.output("y", x + 1)
    engines: list = []
    builders = [threading.Thread(target=lambda: engines.append(net.build())) for _ in range(4)]
    for thread in builders:
        thread.start()
    for _ in range(50):
        x = x * 2
    for thread in builders:
        thread.join()
    assert len(engines) == 4


def example(name: str) -> dict:
    return runpy.run_path(str(ROOT / "examples" / "python" / f"{name}.py"))


def test_the_transformer_block_gives_what_numpy_gives(capsys):
    ran = example("transformer_block")
    heads, size, width, weights = ran["HEADS"], ran["SIZE"], ran["WIDTH"], ran["weights"]

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    x = ran["inputs"]["x"].astype(np.float64)
    batch, rows, _ = x.shape
    q, k, v = ((norm(x) @ weights[n]).reshape(batch, rows, heads, size).transpose(0, 2, 1, 3) for n in "qkv")
    p = np.exp(np.where(np.tri(rows, dtype=bool), q @ k.swapaxes(2, 3) / np.sqrt(size), -np.inf))
    x = x + (p / p.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(batch, rows, width) @ weights["o"]
    up = norm(x) @ weights["up"]
    np.testing.assert_allclose(ran["outputs"]["y"], x + (up / (1 + np.exp(-up))) @ weights["down"], rtol=1e-4, atol=1e-5)
    assert "['all_reduce', 'all_reduce']" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["context_parallel_attention", "collectives"])
def test_examples_that_compare_themselves_with_numpy(name):
    example(name)
