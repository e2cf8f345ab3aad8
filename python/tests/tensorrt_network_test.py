"""tandem.tensorrt: what layers compute, and what networks refuse. Oracles are plain numpy in double."""

import math

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt

FLOAT = trt.DataType.FLOAT


def new_network():
    return trt.Builder(trt.Logger()).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def run(network, arrays, config=None):
    """Builds, serializes, loads and runs a network of one rank; the outputs in order."""
    builder = network.builder
    memory = builder.build_serialized_network(network, config or builder.create_builder_config())
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(memory)
    context = engine.create_execution_context()
    outputs = []
    for name, array in arrays.items():
        context.set_input_shape(name, array.shape)
        context.set_tensor_address(name, array.ctypes.data)
    for i in range(len(arrays), engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        dtype = "bool" if engine.get_tensor_dtype(name) == trt.bool else trt.nptype(engine.get_tensor_dtype(name))
        outputs.append(np.zeros(tuple(context.get_tensor_shape(name)), dtype))
        context.set_tensor_address(name, outputs[-1].ctypes.data)
    assert context.execute_async_v3(0) is True
    return outputs


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def one_layer(add, *arrays, shape=None):
    """The result of one layer on arrays, and the shape its tensor says."""
    network = new_network()
    kinds = {"float32": FLOAT, "int32": trt.int32, "int64": trt.int64, "bool": trt.bool}
    inputs = [network.add_input(f"x{i}", kinds[a.dtype.name], a.shape) for i, a in enumerate(arrays)]
    result = add(network, *inputs).get_output(0)
    network.mark_output(result)
    said = tuple(result.shape)
    (out,) = run(network, {f"x{i}": a for i, a in enumerate(arrays)})
    assert out.shape == said
    return out


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


E = trt.ElementWiseOperation


@pytest.mark.parametrize(
    ("op", "oracle"),
    [
        (E.SUM, np.add),
        (E.PROD, np.multiply),
        (E.MAX, np.maximum),
        (E.MIN, np.minimum),
        (E.SUB, np.subtract),
        (E.DIV, np.divide),
        (E.FLOOR_DIV, np.floor_divide),
    ],
)
def test_elementwise(op, oracle):
    a, b = normal(3, 4), normal(1, 4, seed=1) + 3
    close(one_layer(lambda n, x, y: n.add_elementwise(x, y, op), a, b), oracle(a, b))


def test_floor_div_of_integers():
    a, b = np.array([7, -7, 8, -9], np.int32), np.array([2, 2, -3, 4], np.int32)
    np.testing.assert_array_equal(one_layer(lambda n, x, y: n.add_elementwise(x, y, E.FLOOR_DIV), a, b), a // b)


U = trt.UnaryOperation


@pytest.mark.parametrize(
    ("op", "oracle"),
    [
        (U.EXP, np.exp),
        (U.LOG, np.log),
        (U.SQRT, np.sqrt),
        (U.RECIP, np.reciprocal),
        (U.NEG, np.negative),
        (U.SIN, np.sin),
        (U.FLOOR, np.floor),
        (U.ABS, np.abs),
    ],
)
def test_unary(op, oracle):
    a = np.abs(normal(2, 5)) + 0.1
    close(one_layer(lambda n, x: n.add_unary(x, op), a), oracle(a))


A = trt.ActivationType


@pytest.mark.parametrize(
    ("kind", "alpha", "beta", "oracle"),
    [
        (A.RELU, 0, 0, lambda x: np.maximum(x, 0)),
        (A.SIGMOID, 0, 0, lambda x: 1 / (1 + np.exp(-x))),
        (A.TANH, 0, 0, np.tanh),
        (A.LEAKY_RELU, 0.25, 0, lambda x: np.where(x >= 0, x, 0.25 * x)),
        (A.ELU, 2.0, 0, lambda x: np.where(x > 0, x, 2 * (np.exp(x) - 1))),
        (A.CLIP, -0.5, 0.75, lambda x: np.clip(x, -0.5, 0.75)),
        (A.SOFTPLUS, 1, 1, lambda x: np.log(1 + np.exp(x))),
        (A.HARD_SIGMOID, 0.3, 0.4, lambda x: np.clip(0.3 * x + 0.4, 0, 1)),
        (A.GELU_ERF, 0, 0, lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
        (A.GELU_TANH, 0, 0, lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_activation(kind, alpha, beta, oracle):
    def add(network, x):
        layer = network.add_activation(x, kind)
        layer.alpha, layer.beta = alpha, beta
        return layer

    x = normal(4, 6)
    close(one_layer(add, x), oracle(x.astype(np.float64)))


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
def test_matrix_multiply(transposed):
    a, b = normal(2, 3, 4), normal(1, 4, 5, seed=1)
    given = [np.ascontiguousarray(m.swapaxes(1, 2)) if t else m for m, t in zip((a, b), transposed, strict=True)]
    ops = [trt.MatrixOperation.TRANSPOSE if t else trt.MatrixOperation.NONE for t in transposed]
    close(one_layer(lambda n, x, y: n.add_matrix_multiply(x, ops[0], y, ops[1]), *given), a.astype(np.float64) @ b)


def test_shuffle():
    def add(network, x):
        layer = network.add_shuffle(x)
        layer.first_transpose = (2, 0, 1)
        layer.reshape_dims = (0, -1)
        layer.second_transpose = (1, 0)
        return layer

    x = normal(2, 3, 4)
    np.testing.assert_array_equal(one_layer(add, x), x.transpose(2, 0, 1).reshape(4, 6).T)


def test_shape_follows_what_is_set_later():
    network = new_network()
    layer = network.add_shuffle(network.add_input("x", FLOAT, (2, 6)))
    result = layer.get_output(0)
    assert result.shape == (2, 6)
    layer.reshape_dims = (3, 4)
    assert result.shape == (3, 4) and isinstance(result.shape, trt.Dims)
    layer.first_transpose = (1, 0)
    layer.reshape_dims = (-1, 2)
    assert result.shape == (6, 2)


def test_other_layers():
    x = normal(2, 3, 4)
    cast = one_layer(lambda n, t: n.add_cast(t, trt.int32), x * 3)
    np.testing.assert_array_equal(cast, (x * 3).astype(np.int32))
    np.testing.assert_array_equal(one_layer(lambda n, t: n.add_identity(n.add_unary(t, U.NEG).get_output(0)), x), -x)
    np.testing.assert_array_equal(one_layer(lambda n, t: n.add_slice(t, (0, 1, 0), (2, 2, 2), (1, 1, 2)), x), x[:, 1:3, ::2])
    close(one_layer(lambda n, t: n.add_reduce(t, trt.ReduceOperation.AVG, 0b101, True), x), x.mean((0, 2), keepdims=True))
    indices = np.array([2, 0], np.int32)
    np.testing.assert_array_equal(one_layer(lambda n, t, i: n.add_gather(t, i, 1), x, indices), x[:, [2, 0]])
    np.testing.assert_array_equal(one_layer(lambda n, c, a, b: n.add_select(c, a, b), x > 0, x, -x), np.abs(x))


def test_axes_of_softmax_and_concatenation():
    x = normal(2, 3, 4)

    def softmax(network, t, axes=None):
        layer = network.add_softmax(t)
        assert layer.axes == 1  # TensorRT's default: the third dimension from the end
        if axes:
            layer.axes = axes
        return layer

    def oracle(axis):
        return np.exp(x) / np.exp(x).sum(axis, keepdims=True)

    close(one_layer(softmax, x), oracle(0))
    close(one_layer(lambda n, t: softmax(n, t, 1 << 2), x), oracle(2))

    def joined(network, a, b):
        layer = network.add_concatenation([a, b])
        layer.axis = 1
        return layer

    np.testing.assert_array_equal(one_layer(joined, x, -x), np.concatenate([x, -x], 1))


def test_normalization():
    x, scale, bias = normal(2, 3, 8), normal(1, 1, 8, seed=1), normal(1, 1, 8, seed=2)
    expected = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5) * scale + bias
    close(one_layer(lambda n, a, s, b: n.add_normalization(a, s, b, 1 << 2), x, scale, bias), expected)


def test_rotary_embedding():
    x, angle = normal(1, 2, 3, 8), normal(1, 3, 4, seed=1)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    expected = np.concatenate([x[..., :4] * c - x[..., 4:] * s, x[..., 4:] * c + x[..., :4] * s], -1)
    close(one_layer(lambda n, t, a, b: n.add_rotary_embedding(t, a, b, False, 0), x, np.cos(angle), np.sin(angle)), expected)


def test_constant_and_dynamic_extent():
    network = new_network()
    x = network.add_input("x", FLOAT, (-1, 4))
    w = normal(4, 5)
    product = network.add_matrix_multiply(
        x, trt.MatrixOperation.NONE, network.add_constant((4, 5), trt.Weights(w)).get_output(0), trt.MatrixOperation.NONE
    )
    product.name = "product"
    assert product.get_output(0).shape == (-1, 5)
    network.mark_output(product.get_output(0))
    config = network.builder.create_builder_config()
    profile = network.builder.create_optimization_profile()
    profile.set_shape("x", (1, 4), (8, 4), (32, 4))
    assert config.add_optimization_profile(profile) == 0
    for rows in (1, 7, 32):
        a = normal(rows, 4, seed=rows)
        close(run(network, {"x": a}, config)[0], a.astype(np.float64) @ w)
    with pytest.raises(tandem.Error, match="33"):
        run(network, {"x": normal(33, 4)}, config)


def attention_oracle(q, k, v, allowed=None):
    q, k, v = (t.astype(np.float64) for t in (q, k, v))
    k, v = (np.repeat(t, q.shape[1] // k.shape[1], 1) for t in (k, v))
    scores = q @ k.swapaxes(2, 3)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("kind", list(trt.CausalMaskKind))
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_has_no_factor(kind, kv_heads):
    q, k, v = normal(2, 4, 3, 8), normal(2, kv_heads, 5, 8, seed=1), normal(2, kv_heads, 5, 8, seed=2)
    rows, columns = np.arange(3)[:, None], np.arange(5)[None]
    allowed = {"NONE": np.ones((3, 5), bool), "UPPER_LEFT": columns <= rows, "LOWER_RIGHT": columns <= rows + 2}[kind.name]
    got = one_layer(lambda n, a, b, c: n.add_attention_v2(a, b, c, trt.AttentionNormalizationOp.SOFTMAX, kind), q, k, v)
    close(got, attention_oracle(q, k, v, allowed))


def test_attention_mask_and_lengths():
    q, k, v = normal(2, 4, 3, 8), normal(2, 4, 5, 8, seed=1), normal(2, 4, 5, 8, seed=2)
    mask = np.random.default_rng(3).random((1, 4, 3, 5)) < 0.6
    mask[..., 0] = True
    lengths = np.array([2, 5], np.int32)

    def masked(network, a, b, c, m):
        layer = network.add_attention(a, b, c, trt.AttentionNormalizationOp.SOFTMAX, False)
        layer.mask = m
        layer.decomposable = True
        return layer

    close(one_layer(masked, q, k, v, mask), attention_oracle(q, k, v, mask))

    def limited(network, a, b, c, n):
        layer = network.add_attention_v2(a, b, c, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE)
        layer.key_value_lengths = n
        return layer

    close(one_layer(limited, q, k, v, lengths), attention_oracle(q, k, v, np.arange(5) < lengths[:, None, None, None]))


def attention_of(network):
    q, k, v = (network.add_input(name, FLOAT, (1, 2, 4, 8)) for name in "qkv")
    return network.add_attention_v2(q, k, v, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.UPPER_LEFT)


def test_what_attention_refuses():
    network = new_network()
    layer = attention_of(network)
    with pytest.raises(tandem.Error, match="NONE"):
        layer.norm_op = trt.AttentionNormalizationOp.NONE
    with pytest.raises(tandem.Error, match="PACKED_NHD"):
        layer.query_form = trt.AttentionIOForm.PACKED_NHD
    with pytest.raises(tandem.Error, match="normalization_quantize_scale"):
        layer.normalization_quantize_scale = None
    for ranks in (0, -1, True, 2.0):
        with pytest.raises(tandem.Error, match="from 1"):
            layer.num_ranks = ranks
    layer.mask = network.add_input("mask", trt.bool, (1, 1, 4, 4))
    with pytest.raises(tandem.Error, match="exclude each other"):
        layer.get_output(0).shape  # noqa: B018


def test_ranks_cannot_be_changed_once_above_one():
    layer = attention_of(new_network())
    layer.num_ranks = 1
    layer.num_ranks = 2
    layer.num_ranks = 2
    with pytest.raises(tandem.Error, match="cannot be changed"):
        layer.num_ranks = 4
    with pytest.raises(tandem.Error, match="cannot be changed"):
        layer.num_ranks = 1
    other = layer._network.add_identity(layer.get_output(0))
    with pytest.raises(tandem.Error, match="only collectives and attention"):
        other.num_ranks = 2


C, R = trt.CollectiveOperation, trt.ReduceOperation


@pytest.mark.parametrize(
    ("operation", "reduce", "root", "groups", "words"),
    [
        (C.ALL_REDUCE, R.NONE, -1, None, "reduces, but reduce_op is NONE"),
        (C.ALL_GATHER, R.SUM, -1, None, "reduces nothing"),
        (C.BROADCAST, R.NONE, -1, None, "has a root"),
        (C.SCATTER, R.NONE, 3, [0, 1], "not in group"),
        (C.ALL_GATHER, R.NONE, -1, [0, [1, 2]], "mixes"),
    ],
)
def test_what_collectives_refuse(operation, reduce, root, groups, words):
    network = new_network()
    with pytest.raises(tandem.Error, match=words):
        network.add_dist_collective(network.add_input("x", FLOAT, (4, 2)), operation, reduce, root, groups)


def test_shape_of_a_collective_follows_num_ranks():
    network = new_network()
    layer = network.add_dist_collective(network.add_input("x", FLOAT, (6, 2)), C.ALL_GATHER, R.NONE, -1, None)
    result = layer.get_output(0)
    assert result.shape == (6, 2)  # one rank: the identity
    layer.num_ranks = 3
    assert result.shape == (18, 2)
    parts = network.add_dist_collective(result, C.REDUCE_SCATTER, R.SUM, -1, None)
    parts.num_ranks = 4
    with pytest.raises(tandem.Error, match="18") as caught:
        parts.get_output(0).shape  # noqa: B018
    assert "ReduceScatter" in caught.value.node


def test_shape_of_a_collective_with_groups_before_num_ranks():
    for groups, ranks, extent in (([0, 1], 2, 12), ([[0, 1, 2], [3, 4, 5]], 3, 18)):
        network = new_network()
        layer = network.add_dist_collective(network.add_input("x", FLOAT, (6, 2)), C.ALL_GATHER, R.NONE, -1, groups)
        doubled = network.add_identity(layer.get_output(0)).get_output(0)
        assert layer.get_output(0).shape == (6, 2)  # the identity as yet
        assert doubled.shape == (6, 2)
        layer.num_ranks = ranks
        assert layer.get_output(0).shape == (extent, 2)
        assert doubled.shape == (extent, 2)
    network = new_network()
    layer = network.add_dist_collective(network.add_input("x", FLOAT, (6, 2)), C.BROADCAST, R.NONE, 1, None)
    assert layer.get_output(0).shape == (6, 2)
    network.mark_output(layer.get_output(0))
    with pytest.raises(tandem.Error, match="root 1 is no rank of 1"):
        network._whole()
    layer.num_ranks = 2
    assert network._whole().network.outputs


def test_names():
    network = new_network()
    x = network.add_input("x", FLOAT, (2, 2))
    layer = network.add_unary(x, U.NEG)
    assert layer.name == "(Unnamed Layer* 0) [Unary]" and layer.get_output(0).name == "(Unnamed Layer* 0) [Unary]_output"
    layer.name = "negated"
    assert layer.get_output(0).name == "negated_output" and layer.type == trt.LayerType.UNARY
    with pytest.raises(tandem.Error, match="taken"):
        layer.get_output(0).name = "x"
    with pytest.raises(tandem.Error, match="taken"):
        network.add_input("x", FLOAT, (2,))
    assert (
        network.num_layers == 1 and [one.name for one in network] == ["negated"] and layer.get_input(0) is x and layer.get_input(1) is None
    )
    with pytest.raises(tandem.Error, match="no outputs"):
        network.builder.build_serialized_network(network, network.builder.create_builder_config())
    with pytest.raises(tandem.Error, match="another network"):
        new_network().add_identity(x)


def test_order_of_layers_is_free():
    network = new_network()
    x = network.add_input("x", FLOAT, (2, 2))
    last = network.add_elementwise(x, x, E.SUM)
    late = network.add_unary(x, U.EXP)
    last.set_input(1, late.get_output(0))
    network.mark_output(last.get_output(0))
    a = normal(2, 2)
    close(run(network, {"x": a})[0], a + np.exp(a))
    late.set_input(0, last.get_output(0))
    with pytest.raises(tandem.Error, match="needs its own result"):
        last.get_output(0).shape  # noqa: B018


@pytest.mark.parametrize("name", ["add_loop", "add_convolution_nd", "add_plugin_v3", "add_something"])
def test_layers_that_are_missing(name):
    network = new_network()
    assert not hasattr(network, name)
    with pytest.raises(tandem.Error, match=name) as caught:
        getattr(network, name)
    assert caught.value.code == "unsupported"
