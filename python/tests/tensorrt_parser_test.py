"""tandem.tensorrt: networks that are parsed."""

import numpy as np
import onnx
import pytest
import tandem
import tandem.tensorrt as trt
from conftest import Heard
from onnx import TensorProto, helper

FLOAT = trt.DataType.FLOAT


def test_create_network_flags(builder):
    for flags in (0, 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH), 3):
        assert builder.create_network(flags).get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    with pytest.raises(tandem.Error, match="flags 0x4"):
        builder.create_network(4)


def onnx_model(op="Add", opset=18):
    nodes = [helper.make_node(op, ["a", "b"], ["y"], "the_node")]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "aby"]
    return helper.make_model(
        helper.make_graph(nodes, "g", ports[:2], ports[2:]), opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    )


def test_parser_of_bytes_and_files(builder, config, tmp_path):
    file = tmp_path / "add.onnx"
    onnx.save(onnx_model(), file)
    for parse in (
        lambda p: p.parse(file.read_bytes()),
        lambda p: p.parse(file.read_bytes(), str(file)),
        lambda p: p.parse_from_file(str(file)),
    ):
        network = builder.create_network()
        parser = trt.OnnxParser(network, trt.Logger())
        assert parse(parser) is True and parser.num_errors == 0
        assert (network.num_inputs, network.num_outputs) == (2, 1)
        x = network.get_input(0)
        assert (x.name, x.shape, x.dtype, x.get_dimension_name(0)) == ("a", (-1, 3), FLOAT, "n")
        assert network.get_output(0).name == "y" and network.get_output(0).is_network_output
        engine = builder.build_engine_with_config(network, config)
        assert run_add(engine, "y")


def run_add(engine, output):
    context = engine.create_execution_context()
    a, b = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((4, 3), np.float32)
    out = np.zeros((4, 3), np.float32)
    for name, array in (("a", a), ("b", b), (output, out)):
        if name != output:
            context.set_input_shape(name, array.shape)
        context.set_tensor_address(name, array.ctypes.data)
    context.execute_async_v3(0)
    return (out == a + b).all()


def test_layers_after_a_parsed_model(builder, config):
    network = builder.create_network()
    assert trt.OnnxParser(network, trt.Logger()).parse(onnx_model().SerializeToString())
    y = network.get_output(0)
    network.unmark_output(y)
    negated = network.add_unary(network.add_unary(y, trt.UnaryOperation.NEG).get_output(0), trt.UnaryOperation.NEG).get_output(0)
    negated.name = "same"
    network.mark_output(negated)
    assert negated.shape == (-1, 3) and "same" in network.to_text()
    assert run_add(builder.build_engine_with_config(network, config), "same")
    with pytest.raises(tandem.Error, match="of a parsed model"):
        network.get_input(0).shape = (4, 3)
    with pytest.raises(tandem.Error, match="not empty"):
        trt.OnnxParser(network, trt.Logger()).parse(onnx_model().SerializeToString())


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        (b"not a model", None, "."),
        (onnx_model("NoSuchOperator").SerializeToString(), "UNSUPPORTED_NODE", "NoSuchOperator"),
        (onnx_model(opset=3).SerializeToString(), None, "opset"),
    ],
)
def test_parser_errors(builder, model, code, words):
    logger, network = Heard(), builder.create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model) is False and parser.num_errors == 1
    error = parser.get_error(0)
    assert words in str(error) or words == "."
    assert error.code() != trt.ErrorCode.SUCCESS and (code is None or error.code().name == code)
    if code:
        assert error.node_operator() == "NoSuchOperator" and error.node_name() == "the_node"
    assert len(logger.messages) == 1
    parser.clear_errors()
    assert parser.num_errors == 0
    with pytest.raises(tandem.Error, match="no error 0"):
        parser.get_error(0)
    assert parser.parse(onnx_model().SerializeToString())  # the network stayed empty


def test_parser_flags(builder):
    parser = trt.OnnxParser(builder.create_network(), trt.Logger())
    parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    assert parser.get_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    with pytest.raises(tandem.Error, match="ENABLE_PLUGIN_OVERRIDE"):
        parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
