"""Programs that are ranks themselves: threads and processes, environment, torch's process groups."""

import subprocess
import sys

import numpy as np
import pytest
import tandem
from conftest import on_threads


@pytest.fixture(scope="module")
def engine(mlp):
    return tandem.build(mlp.path, mesh={"tp": 2})


def on_ranks(size, body):
    """body(rank, group) on threads; what each returned, or the first error."""
    return on_threads([lambda group=group: body(group.rank, group) for group in tandem.Group.in_process(size)])


def test_ranks_as_threads(engine, mlp):
    x = mlp.inputs()

    def body(rank, group):
        with tandem.Context(engine, rank=rank, threads=1) as context:
            context.set_communicator(group)
            context.set_communicator(None)
            context.set_communicator(group)
            context.set_input_shape("x", x.shape)
            assert context.output_shape("out") == (6, 8) and context.input_shape("x") == (6, 8)
            context.prepare()
            mine = np.empty((6, 8), np.float32)
            assert context.run({"x": x}, {"out": mine})["out"] is mine and context.last_copies == 0
            context.set_communicator(group)  # again: a group of its own, made in the same order on all ranks
            np.testing.assert_array_equal(context(x=x)["out"], mine)
            return mine

    for out in on_ranks(2, body):
        np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)


def test_optimization_profiles(mlp):
    profiles = [{"x": "1x8:1x8:4x8"}, {"x": "2x8:6x8:32x8"}]
    engine = tandem.build(mlp.path, mesh={"tp": 2}, profiles=profiles)
    assert engine.profiles == 2 and engine.random_inputs(profile=1)["x"].shape == (6, 8)
    assert [p["symbols"] for p in engine.describe()["profiles"]] == [
        p["symbols"] for p in tandem.load_engine(engine.to_bytes()).describe()["profiles"]
    ]
    few, many = mlp.inputs()[:3], mlp.inputs()

    def body(rank, group):
        with engine.create_context(rank=rank, threads=1) as context:
            context.set_communicator(group)
            assert context.profile == 0
            outputs = [context(x=few)["out"]]
            with pytest.raises(tandem.Error, match=r"input 'x'.* 6 is outside 1 … 4; profile 1 would"):
                context(x=many)
            context.set_profile(1)
            outputs += [context(x=many)["out"], context(x=few)["out"]]
            context.set_profile(-1)
            outputs += [context(x=many)["out"], context(x=few[:1])["out"]]
            assert context.profile == 0
            with pytest.raises(tandem.Error, match="no optimization profile 2"):
                context.set_profile(2)
            return outputs

    for outputs in on_ranks(2, body):
        for out, x in zip(outputs, (few, many, few, many, few[:1]), strict=True):
            np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)
    for isolate in ("threads", "processes"):
        with tandem.load(engine, isolate=isolate) as model:
            for x in (few, many, few[:1]):
                np.testing.assert_allclose(model(x=x)["out"], mlp(x), rtol=1e-4, atol=1e-4)
    with tandem.load(tandem.build(mlp.path, profiles=profiles)) as model:  # of one rank
        for x in (few, many, few[:1]):
            np.testing.assert_allclose(model(x=x)["out"], mlp(x), rtol=1e-4, atol=1e-4)
        with pytest.raises(tandem.Error, match="fit no optimization profile"):
            model(x=np.zeros((33, 8), np.float32))


@pytest.mark.parametrize(
    ("profiles", "says"),
    [
        ([], "profiles is empty"),
        ({"x": "1x8"}, "expected a list"),
        (["x"], "expected a list"),
        ([{}], "optimization profile 0 gives no input a shape"),
        ([{"x": "1x8"}, {"z": "1x8"}], "'z'"),
    ],
)
def test_optimization_profiles_that_are_none(mlp, profiles, says):
    with pytest.raises(tandem.Error, match=says) as caught:
        tandem.build(mlp.path, profiles=profiles)
    assert caught.value.code == "invalid_argument"


def test_created_by_the_engine(engine, mlp):
    x = mlp.inputs()

    def body(rank, group):
        with engine.create_context(rank=rank, threads=1, step_deadline=20, rendezvous_deadline=20) as context:
            assert isinstance(context, tandem.Context) and context.rank == rank and context.engine.mesh == engine.mesh
            context.set_communicator(group)
            assert context.notices == []
            return context(x=x)["out"]

    for out in on_ranks(2, body):
        np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(tandem.Error, match="no rank 2 of 2"):
        engine.create_context(rank=2)
    with pytest.raises(TypeError):
        engine.create_context(1)


def test_a_group_that_is_of_no_use_gives_a_notice(mlp, caplog):
    x = mlp.inputs()
    for mesh, size in ((None, 3), ({"dp": 2}, 2)):
        engine = tandem.build(mlp.path, mesh=mesh)
        assert engine.collectives == []
        caplog.clear()

        def body(rank, group, engine=engine):
            with engine.create_context(rank=rank if engine.ranks > 1 else 0) as context:
                context.set_communicator(group)
                notices = context.notices
                out = context(x=x[3 * rank : 3 * rank + 3] if engine.ranks > 1 else x)["out"]
                context.set_communicator(None)
                assert context.notices == []
                return notices, out

        results = on_ranks(size, body)
        for notices, _ in results:
            assert len(notices) == 1 and f"does not communicate with the group of {size}" in notices[0]
        assert [record.message for record in caplog.records if record.name == "tandem"] == [notices[0] for notices, _ in results]
        whole = np.concatenate([out for _, out in results]) if engine.ranks > 1 else results[0][1]
        np.testing.assert_allclose(whole, mlp(x), rtol=1e-4, atol=1e-4)


def test_two_contexts_of_one_group(engine, mlp):
    x = mlp.inputs()

    def body(rank, group):
        with tandem.Context(engine, rank=rank) as first, tandem.Context(engine, rank=rank) as second:
            first.set_communicator(group)
            second.set_communicator(group)
            return [context(x=x)["out"] for context in (first, second, first)]

    for outs in on_ranks(2, body):
        for out in outs:
            np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)


def test_parts_of_split_inputs(mlp):
    engine = tandem.build(mlp.path, mesh={"dp": 2})
    x = mlp.inputs(6)

    def body(rank, group):
        with tandem.Context(engine, rank=rank) as context:
            context.set_communicator(group)
            out = context(x=x[3 * rank : 3 * rank + 3])["out"]
            context.set_input_shape("x", (6, 8))
            with pytest.raises(tandem.Error, match=r"\[6,8\], expected \[3,8\]: the part of this rank"):
                context(x=x)
            return out

    np.testing.assert_allclose(np.concatenate(on_ranks(2, body)), mlp(x), rtol=1e-4, atol=1e-4)


def test_addresses(engine, mlp):
    x, wanted = mlp.inputs(), mlp(mlp.inputs())

    def body(rank, group):
        with tandem.Context(engine, rank=rank) as context:
            context.set_communicator(group)
            context.set_input_shape("x", x.shape)
            out = np.empty((6, 8), np.float32)
            context.run_addresses({"x": x.ctypes.data, "out": out.ctypes.data})
            with pytest.raises(tandem.Error, match="output 'out' has no address"):
                context.run_addresses({"x": x.ctypes.data})
            return out

    for out in on_ranks(2, body):
        np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


def test_tf32_changes_nothing_on_cpus(mlp):
    plain, asked = tandem.build(mlp.path), tandem.build(mlp.path, tf32=True)
    assert asked.describe()["built_with"]["options"] == "tf32" and asked.describe()["tf32"] is False
    assert asked.notices[:-1] == plain.notices and "TF32 changes nothing on CPU ranks" in asked.notices[-1]
    outs = []
    for engine in (plain, asked):
        with tandem.load(engine, threads=1) as model:
            outs.append(model(x=mlp.inputs())["out"])
    np.testing.assert_array_equal(*outs)


def test_auxiliary_streams(engine):
    assert engine.auxiliary_streams == 0
    with tandem.Context(engine, rank=0, threads=1) as context:
        assert context.auxiliary_streams == 0
        context.set_auxiliary_streams([])
        with pytest.raises(tandem.errors.InvalidArgumentError, match="2 auxiliary streams are given, the kernels use 0 at most"):
            context.set_auxiliary_streams([None, 17])
        with pytest.raises(tandem.errors.InvalidArgumentError, match="a stream is given as its number"):
            context.set_auxiliary_streams(["here"])


def test_communicators_that_do_not_fit(engine, mlp):
    with tandem.Context(engine, rank=1) as context:
        for group, code in [
            (tandem.Group.in_process(3)[1], "mismatch"),
            (tandem.Group.in_process(2)[0], "mismatch"),
            (140_000_000_000, "unsupported"),
            (1 << 70, "invalid_argument"),
            (True, "invalid_argument"),
            ("group", "invalid_argument"),
        ]:
            with pytest.raises(tandem.Error) as caught:
                context.set_communicator(group)
            assert caught.value.code == code, caught.value
        with pytest.raises(tandem.Error, match="no group is bound"):
            context(x=mlp.inputs())
    for rank in (-1, 2):
        with pytest.raises(tandem.Error, match=f"no rank {rank} of 2"):
            tandem.Context(engine, rank=rank)


def test_groups_of_what_is_no_communicator():
    for bad in ("comm", None, True, object(), 1 << 70, type("Communicator", (), {"ptr": "text"})()):
        with pytest.raises(tandem.Error) as caught:
            tandem.Group.from_nccl(bad)
        assert caught.value.code == "invalid_argument", caught.value
    if tandem.gpu_count() == 0:
        with pytest.raises(NotImplementedError):
            tandem.Group.from_nccl(1234)


def test_a_missing_rank_is_named(engine, mlp):
    with tandem.Context(engine, rank=0, rendezvous_deadline=0.2) as context:
        groups = tandem.Group.in_process(2)
        context.set_communicator(groups[0])
        with pytest.raises(tandem.errors.DeadlineError) as caught:
            context(x=mlp.inputs())
        assert caught.value.rank == 1 and isinstance(caught.value, TimeoutError)


RANK = """
import sys
import numpy as np
import tandem
group = tandem.Group.from_env()
x = np.load(sys.argv[2])
with tandem.Context(tandem.load_engine(sys.argv[1]), rank=group.rank) as context:
    context.set_communicator(group)
    out = context(x=x)["out"]
np.save(f"{sys.argv[3]}/{group.rank}.npy", out)
print(group.rank, group.size)
"""

LAUNCHERS = {
    "torchrun": lambda r: {
        "RANK": r,
        "WORLD_SIZE": 2,
        "LOCAL_RANK": r,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 29511,
    },
    "mpirun": lambda r: {
        "OMPI_COMM_WORLD_RANK": r,
        "OMPI_COMM_WORLD_SIZE": 2,
        "OMPI_COMM_WORLD_LOCAL_RANK": r,
        "PMIX_NAMESPACE": "tandem.test",
    },
    "srun": lambda r: {"SLURM_PROCID": r, "SLURM_NTASKS": 2, "SLURM_LOCALID": r, "SLURM_JOB_ID": 77, "SLURM_NNODES": 1},
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_from_the_environment(engine, mlp, tmp_path, launcher):
    import os

    engine.save(tmp_path / "mlp.tandem")
    np.save(tmp_path / "x.npy", mlp.inputs())
    processes = []
    for rank in (1, 0):
        environment = {**os.environ, **{name: str(value) for name, value in LAUNCHERS[launcher](rank).items()}}
        command = [sys.executable, "-c", RANK, tmp_path / "mlp.tandem", tmp_path / "x.npy", tmp_path]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for rank, process in zip((1, 0), processes, strict=True):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, f"{rank} 2\n", "")
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), mlp(mlp.inputs()), rtol=1e-4, atol=1e-4)


def test_no_launcher(monkeypatch):
    for names in LAUNCHERS.values():
        for name in names(0):
            monkeypatch.delenv(name, raising=False)
    with pytest.raises(tandem.Error, match="torchrun.*mpirun.*srun"):
        tandem.Group.from_env()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(tandem.Error, match="WORLD_SIZE is 'two'"):
        tandem.Group.from_env()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(NotImplementedError, match="more than one host"):
        tandem.Group.from_env()


TORCH = """
import sys
import numpy as np
import torch.distributed as dist
import tandem
dist.init_process_group("gloo")
group = tandem.Group.from_torch()
with tandem.Context(tandem.load_engine(sys.argv[1]), rank=group.rank) as context:
    context.set_communicator(group)
    context(x=np.ones((6, 8), np.float32))
print(group.rank, group.size)
dist.destroy_process_group()
"""


def test_torch_process_group(engine, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    import os

    engine.save(tmp_path / "mlp.tandem")
    processes = []
    for rank in range(2):
        environment = {**os.environ, **{name: str(value) for name, value in LAUNCHERS["torchrun"](rank).items()}}
        command = [sys.executable, "-c", TORCH, tmp_path / "mlp.tandem"]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    for rank, process in enumerate(processes):
        out, _ = process.communicate(timeout=250)  # torch alone may take a minute to import where much else runs
        assert (process.returncode, out) == (0, f"{rank} 2\n")
