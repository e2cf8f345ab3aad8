"""What docs/coming-from-tensorrt.md decides where the documents contradict each other, as far as no other test shows it."""

import gc
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt
from conftest import MODELS, on_threads

ROOT = Path(__file__).resolve().parents[2]


# ---- no flag must be set for collectives to be seen.


def sharded_by_us():
    return tandem.build(MODELS / "mlp_dynamo.onnx", mesh={"tp": 2})


def sharded_by_another_tool():
    return tandem.build(MODELS / "sharded_context_fused2.onnx", ranks=2)


def written_by_hand():
    net = tandem.Network()
    net.output("y", net.all_reduce(net.input("x", "f32", [4]), num_ranks=2))
    return net.build()


def attention_over_ranks():
    net = tandem.Network(mesh={"cp": 2})
    net.output("y", net.attention(*(net.input(name, "f32", [1, 2, 8, 4], placement="2:cp") for name in "qkv"), axis="cp"), placement="2:cp")
    return net.build()


def tensorrts_layers():
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network()
    layer = network.add_dist_collective(
        network.add_input("x", trt.float32, (4,)), trt.CollectiveOperation.ALL_REDUCE, trt.ReduceOperation.SUM, -1, None
    )
    layer.num_ranks = 2
    network.mark_output(layer.get_output(0))
    return tandem.load_engine(memoryview(builder.build_serialized_network(network, builder.create_builder_config())))


@pytest.mark.parametrize("made", [sharded_by_us, sharded_by_another_tool, written_by_hand, attention_over_ranks, tensorrts_layers])
def test_collectives_are_seen_without_a_flag(made):
    engine = made()
    assert engine.ranks == 2 and len(engine.collectives) >= 1
    assert len(engine.collectives) == sum(step["communicates"] for step in engine.describe()["steps"])
    inputs = engine.random_inputs()
    with engine.create_context() as context:
        for port in engine.inputs:
            if port.per_rank or not re.search(r":[a-z]", port.sharding):  # else a whole array is not this rank's part
                context.set_local_input_shape(port.name, inputs[port.name].shape)
        with pytest.raises(tandem.Error, match="no group is bound"):
            context.prepare()


# ---- no group is taken by itself, and closing gives back what was bound, also of engines that were loaded.


def test_each_context_has_the_group_that_it_was_given(mlp):
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    worlds = [tandem.Group.in_process(2) for _ in range(2)]
    with engine.create_context() as unbound, pytest.raises(tandem.Error, match="no group is bound"):
        unbound(x=mlp.inputs())  # though there are groups of the right size

    def rank_of(group, x):
        def run():
            with engine.create_context(rank=group.rank, threads=1) as context:
                context.set_communicator(group)
                return [context(x=x)["out"] for _ in range(5)]

        return run

    inputs = [mlp.inputs(), 3 - mlp.inputs()]
    results = on_threads([rank_of(group, x) for x, world in zip(inputs, worlds, strict=True) for group in world])
    for i, outputs in enumerate(results):
        for out in outputs:
            np.testing.assert_allclose(out, mlp(inputs[i // 2]), rtol=1e-4, atol=1e-4)


def open_things():
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), maps.count("memfd")


def test_closing_gives_the_group_back(mlp, tmp_path):
    built = tandem.build(mlp.path, mesh={"tp": 2})
    built.save(tmp_path / "mlp.tandem")
    engines = {"built": built, "of a file": tandem.load_engine(tmp_path / "mlp.tandem"), "of bytes": tandem.load_engine(built.to_bytes())}
    before = None
    for _ in range(3):
        for name, engine in engines.items():
            groups = tandem.Group.in_process(2)

            def rank_of(group, engine=engine):
                def run():
                    context = engine.create_context(rank=group.rank, threads=1)
                    context.set_communicator(group)
                    out = context(x=mlp.inputs())["out"]
                    context.close()
                    group.barrier()  # the group is the caller's still
                    group.close()
                    return out

                return run

            for out in on_threads([rank_of(group) for group in groups]):
                np.testing.assert_allclose(out, mlp(mlp.inputs()), rtol=1e-4, atol=1e-4, err_msg=name)
            del groups, rank_of
        before = before or open_things()
    assert open_things() == before


# ---- one option, off unless asked for.


def test_without_the_option_nothing_of_cuda_is_needed():
    options = re.findall(r"^option\((TANDEM_CUDA\w*) .* (ON|OFF)\)", (ROOT / "CMakeLists.txt").read_text(), re.M)
    assert options == [("TANDEM_CUDA", "OFF")]
    package = Path(tandem.__file__).parent
    for file in (*package.glob("_core*.so"), package / "bin" / "tandem"):
        needed = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
        assert "libc.so" in needed and not re.search(r"libcu|libnccl|libnvinfer", needed), needed
