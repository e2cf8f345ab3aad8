"""tandem.tensorrt on several ranks: the eight collectives, attention, communicators, and what ends in an error instead of a hang."""

import ctypes
import threading

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt
from conftest import MODELS, save_onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file

C, R = trt.CollectiveOperation, trt.ReduceOperation
FLOAT = trt.DataType.FLOAT
RUNTIME = trt.Runtime(trt.Logger(trt.Logger.ERROR))


def new_network():
    return trt.Builder(trt.Logger()).create_network()


def built(network, **settings):
    config = network.builder.create_builder_config()
    for name, value in settings.items():
        setattr(config, name, value)
    return network.builder.build_serialized_network(network, config)


def on_ranks(size, body):
    """body(group) on threads; what each returned or raised, by rank."""
    results = [None] * size

    def work(group):
        try:
            results[group.rank] = body(group)
        except Exception as error:  # noqa: BLE001
            results[group.rank] = error

    threads = [
        threading.Thread(target=work, args=(group,)) for group in tandem.Group.in_process(size, step_deadline=1.0, rendezvous_deadline=3.0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def run_rank(engine, group, arrays):
    """One rank of an engine on its arrays; the outputs in order."""
    context = engine.create_execution_context()
    if group is not None:
        assert context.set_communicator(group) is True
    for name, array in arrays.items():
        context.set_input_shape(name, array.shape)
        context.set_tensor_address(name, array.ctypes.data)
    outputs = []
    for i in range(len(arrays), engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        dtype = "uint16" if engine.get_tensor_dtype(name) == trt.bfloat16 else trt.nptype(engine.get_tensor_dtype(name))
        outputs.append(np.zeros(tuple(context.get_tensor_shape(name)), dtype))
        context.set_tensor_address(name, outputs[-1].ctypes.data)
    context.execute_async_v3(0)
    return outputs


def run_all(memory, inputs):
    """Every rank with an engine of its own from the same bytes; raises what a rank raised."""

    def body(group):
        return run_rank(RUNTIME.deserialize_cuda_engine(memory), group, inputs[group.rank])

    results = on_ranks(len(inputs), body)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def collective_network(operation, reduce, root, groups, shape, ranks, dtype=FLOAT):
    network = new_network()
    x = network.add_input("x", dtype, shape)
    layer = network.add_dist_collective(x, operation, reduce, root, groups)
    layer.num_ranks = ranks
    layer.name = "exchange"
    network.mark_output(layer.get_output(0))
    return network


def oracle(operation, reduce, root, members, inputs, rank):
    """What `rank` gets, by the contract; `members` are the ranks of its group, in order."""
    given = [inputs[m] for m in members]
    place, count = members.index(rank), len(members)
    fold = {R.SUM: np.add, R.PROD: np.multiply, R.MAX: np.maximum, R.MIN: np.minimum, R.AVG: np.add}.get(reduce)
    reduced = None
    if fold:
        reduced = given[0].astype(np.float64)
        for one in given[1:]:
            reduced = fold(reduced, one)
        reduced = reduced / count if reduce == R.AVG else reduced
    at_root = rank == root
    if operation == C.ALL_REDUCE:
        return reduced
    if operation == C.ALL_GATHER:
        return np.concatenate(given)
    if operation == C.BROADCAST:
        return inputs[root]
    if operation == C.REDUCE:
        return reduced if at_root else np.zeros_like(given[0])
    if operation == C.REDUCE_SCATTER:
        return np.split(reduced, count)[place]
    if operation == C.ALL_TO_ALL:
        return np.concatenate([np.split(one, count)[place] for one in given])
    if operation == C.GATHER:
        joined = np.concatenate(given)
        return joined if at_root else np.zeros_like(joined)
    return np.split(inputs[root], count)[place]


REDUCING = [(op, how) for op in (C.ALL_REDUCE, C.REDUCE, C.REDUCE_SCATTER) for how in (R.SUM, R.PROD, R.MAX, R.MIN, R.AVG)]
MOVING = [(op, R.NONE) for op in (C.ALL_GATHER, C.BROADCAST, C.ALL_TO_ALL, C.GATHER, C.SCATTER)]


@pytest.mark.parametrize(("operation", "reduce"), REDUCING + MOVING)
@pytest.mark.parametrize("ranks", [2, 3])
def test_collectives(operation, reduce, ranks):
    inputs = [np.random.default_rng(r).standard_normal((6, 4)).astype(np.float32) for r in range(ranks)]
    root = ranks - 1
    memory = built(collective_network(operation, reduce, root, None, (6, 4), ranks))
    for rank, (out,) in enumerate(run_all(memory, [{"x": x} for x in inputs])):
        np.testing.assert_allclose(out, oracle(operation, reduce, root, list(range(ranks)), inputs, rank), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["HALF", "INT8", "INT32", "INT64", "UINT8"])
def test_element_types(dtype):
    kind = trt.DataType[dtype]
    inputs = [np.arange(4).reshape(2, 2).astype(trt.nptype(kind)) + r for r in range(2)]
    memory = built(collective_network(C.ALL_REDUCE, R.SUM, -1, None, (2, 2), 2, kind))
    for (out,) in run_all(memory, [{"x": x} for x in inputs]):
        np.testing.assert_array_equal(out, inputs[0] + inputs[1])


@pytest.mark.parametrize(
    ("operation", "reduce", "root"), [(C.ALL_REDUCE, R.SUM, -1), (C.BROADCAST, R.NONE, 3), (C.ALL_TO_ALL, R.NONE, -1), (C.REDUCE, R.MAX, 1)]
)
def test_a_flat_list_is_one_group_and_others_pass_through(operation, reduce, root):
    group = [3, 1]  # the order counts, and root is a rank of the world
    inputs = [np.random.default_rng(r).standard_normal((4, 3)).astype(np.float32) for r in range(4)]
    memory = built(collective_network(operation, reduce, root, group, (4, 3), 2))
    for rank, (out,) in enumerate(run_all(memory, [{"x": x} for x in inputs])):
        expected = oracle(operation, reduce, root, group, inputs, rank) if rank in group else inputs[rank]
        np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_lists_of_groups_are_rows_of_a_mesh():
    groups = [[0, 1], [2, 3]]
    inputs = [np.full((2, 2), r, np.float32) for r in range(4)]
    memory = built(collective_network(C.ALL_GATHER, R.NONE, -1, groups, (2, 2), 2))
    for rank, (out,) in enumerate(run_all(memory, [{"x": x} for x in inputs])):
        np.testing.assert_array_equal(out, np.concatenate([inputs[m] for m in groups[rank // 2]]))


def test_groups_of_another_size_than_num_ranks():
    with pytest.raises(tandem.Error, match="2"):
        built(collective_network(C.ALL_GATHER, R.NONE, -1, [0, 1], (2, 2), 4), num_ranks=4)


def test_groups_need_their_num_ranks():
    with pytest.raises(tandem.Error, match="num_ranks is 1, but its groups have 2 ranks"):
        built(collective_network(C.ALL_REDUCE, R.SUM, -1, [0, 1], (2, 2), 1))


def test_ranks_outside_of_every_group():
    with pytest.raises(tandem.Error) as caught:
        built(collective_network(C.ALL_GATHER, R.NONE, -1, [0, 1], (2, 2), 2), num_ranks=3)
    assert "rank" in str(caught.value)


def test_world_is_as_large_as_said():
    memory = built(collective_network(C.ALL_REDUCE, R.SUM, -1, [0, 1], (2, 2), 2), num_ranks=3)
    assert RUNTIME.deserialize_cuda_engine(memory).num_ranks == 3


def test_one_rank_is_the_identity():
    network = collective_network(C.ALL_REDUCE, R.SUM, -1, None, (2, 2), 1)
    x = np.ones((2, 2), np.float32)
    engine = RUNTIME.deserialize_cuda_engine(built(network))
    assert engine.num_ranks == 1
    np.testing.assert_array_equal(run_rank(engine, None, {"x": x})[0], x)


def test_preview_feature_switched_off():
    network = collective_network(C.ALL_REDUCE, R.SUM, -1, None, (2, 2), 2)
    config = network.builder.create_builder_config()
    config.set_preview_feature(trt.PreviewFeature.MULTIDEVICE_RUNTIME_10_16, False)
    with pytest.raises(tandem.Error, match="MULTIDEVICE_RUNTIME_10_16"):
        network.builder.build_serialized_network(network, config)


# Attention


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("causal", [trt.CausalMaskKind.NONE, trt.CausalMaskKind.UPPER_LEFT])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_attention(ranks, causal, kv_heads):
    network = new_network()
    rows, whole_rows = 3, 3 * ranks
    shapes = {"q": (1, 4, rows, 8), "k": (1, kv_heads, rows, 8), "v": (1, kv_heads, rows, 8)}
    q, k, v = (network.add_input(name, FLOAT, shape) for name, shape in shapes.items())
    layer = network.add_attention_v2(q, k, v, trt.AttentionNormalizationOp.SOFTMAX, causal)
    layer.num_ranks = ranks
    network.mark_output(layer.get_output(0))
    assert layer.get_output(0).shape == shapes["q"]
    whole = {
        n: np.random.default_rng(i).standard_normal((1, s[1], whole_rows, 8)).astype(np.float32) for i, (n, s) in enumerate(shapes.items())
    }
    cut = [{n: np.ascontiguousarray(a[:, :, rows * r : rows * (r + 1)]) for n, a in whole.items()} for r in range(ranks)]
    out = np.concatenate([one for (one,) in run_all(built(network), cut)], 2)
    allowed = np.tril(np.ones((whole_rows, whole_rows), bool)) if causal else np.ones((whole_rows, whole_rows), bool)
    w = {n: np.repeat(a.astype(np.float64), 4 // a.shape[1], 1) for n, a in whole.items()}
    scores = np.where(allowed, w["q"] @ w["k"].swapaxes(2, 3), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(out, weights / weights.sum(-1, keepdims=True) @ w["v"], rtol=1e-5, atol=1e-5)


# Files of sharding tools


@pytest.mark.parametrize("name", ["sharded_attention", "sharded_attention_nbRanks", "sharded_context_native2"])
def test_files_of_sharding_tools(name):
    network = new_network()
    parser = trt.OnnxParser(network, trt.Logger())
    assert parser.parse_from_file(str(MODELS / f"{name}.onnx")), str(parser.get_error(0))
    cases = load_file(MODELS / f"{name}.safetensors")
    memory = built(network)
    engine = RUNTIME.deserialize_cuda_engine(memory)
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    per_rank = f"case0.rank0.input.{inputs[0]}" in cases

    def case(rank, side, tensor):
        return np.ascontiguousarray(cases[f"case0.rank{rank}.{side}.{tensor}" if per_rank else f"case0.{side}.{tensor}"])

    results = run_all(memory, [{n: case(r, "input", n) for n in inputs} for r in range(engine.num_ranks)])
    for rank, outputs in enumerate(results):
        for tensor, out in zip(names[len(inputs) :], outputs, strict=True):
            expected = case(rank, "output", tensor).astype(np.float64)
            np.testing.assert_allclose(out.astype(np.float64), expected, rtol=0, atol=1e-2 * np.abs(expected).max())


def test_plain_model_is_sharded(mlp):
    network = new_network()
    assert trt.OnnxParser(network, trt.Logger()).parse_from_file(str(mlp.path))
    x = mlp.inputs()
    for out in run_all(built(network, mesh={"tp": 2}), [{"x": x}, {"x": x}]):
        np.testing.assert_allclose(out[0], mlp(x), rtol=1e-4, atol=1e-4)


def test_bias_after_a_row_split_is_added_once(tmp_path):
    up, down, bias = (np.random.default_rng(i).standard_normal(shape, dtype=np.float32) for i, shape in enumerate(((8, 16), (16, 8), (8,))))
    nodes = [helper.make_node("MatMul", ["x", "up"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes += [helper.make_node("MatMul", ["r", "down"], ["d"]), helper.make_node("Add", ["d", "bias"], ["y"])]
    kind = (TensorProto.FLOAT, [3, 8])
    path = save_onnx(tmp_path / "mlp.onnx", nodes, {"x": kind}, {"y": kind}, {"up": up, "down": down, "bias": bias})
    network = new_network()
    assert trt.OnnxParser(network, trt.Logger()).parse_from_file(path)
    engine = RUNTIME.deserialize_cuda_engine(built(network, mesh={"tp": 2}))
    assert [c.operation for c in engine.tandem_engine.collectives] == ["all_reduce"]
    x = np.random.default_rng(9).standard_normal((3, 8), dtype=np.float32)
    for (out,) in run_all(engine.serialize(), [{"x": x}, {"x": x}]):
        np.testing.assert_allclose(out, np.maximum(x.astype(np.float64) @ up, 0) @ down + bias, rtol=1e-4, atol=1e-4)


# Communicators


@pytest.fixture(scope="module")
def reducing():
    return RUNTIME.deserialize_cuda_engine(built(collective_network(C.ALL_REDUCE, R.SUM, -1, None, (2, 2), 2)))


ONES = np.ones((2, 2), np.float32)


def bound(engine):
    context = engine.create_execution_context()
    out = np.zeros((2, 2), np.float32)
    context.set_tensor_address("x", ONES.ctypes.data)
    context.set_tensor_address(engine.get_tensor_name(1), out.ctypes.data)
    return context, out


def test_without_a_communicator(reducing):
    context, out = bound(reducing)
    with pytest.raises(tandem.Error, match="2 ranks.*set_communicator") as caught:
        context.execute_async_v3(0)
    assert caught.value.code == "invalid_argument" and not out.any()


@pytest.mark.parametrize("size", [1, 3])
def test_of_another_size(reducing, size):
    context, _ = bound(reducing)
    groups = tandem.Group.in_process(size)
    with pytest.raises(tandem.Error, match=f"2 ranks, the communicator has {size}") as caught:
        context.set_communicator(groups[0])
    assert caught.value.code == "mismatch"


class WithPointer:
    """As nccl4py's communicators are."""

    ptr = 1234


class WithComm:
    """As cupy's are."""

    comm = 1234


def test_of_nccl(reducing):
    context, _ = bound(reducing)
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    for communicator in (1234, new_capsule(1234, b"ncclComm_t", None), WithPointer(), WithComm()):
        with pytest.raises(tandem.Error, match="NCCL") as caught:
            context.set_communicator(communicator)
        assert caught.value.code == "unsupported"
    with pytest.raises(tandem.Error, match="no communicator"):
        context.set_communicator("comm")


def test_again_and_released(reducing):
    def body(group):
        context, out = bound(reducing)
        for _ in range(2):
            context.set_communicator(group)
            context.execute_async_v3(0)
            assert (out == 2).all()
        context.set_communicator(None)
        with pytest.raises(tandem.Error):
            context.execute_async_v3(0)
        return True

    assert on_ranks(2, body) == [True, True]


def test_bound_in_one_thread_in_any_order(reducing):
    groups = tandem.Group.in_process(2)
    contexts = [bound(reducing) for _ in groups]
    for rank in (1, 0):
        contexts[rank][0].set_communicator(groups[rank])  # local: TensorRT's waits for the other rank here
    threads = [threading.Thread(target=context.execute_async_v3, args=(0,)) for context, _ in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((out == 2).all() for _, out in contexts)


def test_engine_of_one_rank_takes_one_with_a_notice():
    heard = []

    class Listener(trt.ILogger):
        def log(self, severity, msg):
            heard.append(msg)

    engine = trt.Runtime(Listener()).deserialize_cuda_engine(built(collective_network(C.ALL_REDUCE, R.SUM, -1, None, (2, 2), 1)))
    context, out = bound(engine)
    assert context.set_communicator(tandem.Group.in_process(3)[1]) is True
    assert len(heard) == 1 and "one rank" in heard[0]
    context.execute_async_v3(0)
    assert (out == 1).all()
    heard.clear()
    network = new_network()
    network.mark_output(network.add_identity(network.add_input("x", FLOAT, (2, 2))).get_output(0))
    two = trt.Runtime(Listener()).deserialize_cuda_engine(built(network, num_ranks=2)).create_execution_context()
    assert two.num_ranks == 2 and two.set_communicator(tandem.Group.in_process(2)[1]) is True
    assert len(heard) == 1 and "no collectives" in heard[0]


def test_a_rank_that_does_not_call_is_named(reducing):
    def body(group):
        context, _ = bound(reducing)
        context.set_communicator(group)
        context.execute_async_v3(0)
        if group.rank == 0:
            context.execute_async_v3(0)  # rank 1 stays away
        return None

    results = on_ranks(2, body)
    assert results[1] is None and isinstance(results[0], tandem.Error)
    assert results[0].rank == 1 and results[0].code in ("timeout", "rank_failed", "aborted")


def test_engines_that_differ():
    memories = [built(collective_network(C.ALL_REDUCE, how, -1, None, (2, 2), 2)) for how in (R.SUM, R.MAX)]

    def body(group):
        context, _ = bound(RUNTIME.deserialize_cuda_engine(memories[group.rank]))
        context.set_communicator(group)
        context.execute_async_v3(0)

    for result in on_ranks(2, body):
        assert isinstance(result, tandem.Error) and result.code in ("mismatch", "aborted")
