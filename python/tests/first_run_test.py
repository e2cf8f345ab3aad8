"""From a model file to outputs, on one rank and on several."""

from pathlib import Path

import numpy as np
import pytest
import tandem


@pytest.mark.parametrize("mesh", [None, {"tp": 2}, "dp=2", tandem.Mesh(cp=1, tp=4)])
@pytest.mark.parametrize("isolate", ["threads", "processes"])
def test_build_and_run(mlp, mesh, isolate):
    engine = tandem.build(mlp.path, mesh=mesh)
    x = mlp.inputs()
    with tandem.load(engine, isolate=isolate) as model:
        for _ in range(3):
            out = model(x=x)["out"]
    assert isinstance(out, np.ndarray) and out.dtype == np.float32
    np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)


def test_engine_file(mlp, tmp_path: Path):
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    file = tmp_path / "mlp.tandem"
    engine.save(file)
    assert tandem.is_engine_file(file) and not tandem.is_engine_file(mlp.path)
    loaded = tandem.load_engine(file)
    assert loaded.ranks == 2 and loaded.mesh == tandem.Mesh(tp=2) and loaded.has_weights
    with tandem.load(str(file), ranks=2) as model:
        np.testing.assert_allclose(model({"x": mlp.inputs()})["out"], mlp(mlp.inputs()), rtol=1e-4, atol=1e-4)


def test_model_in_memory(mlp):
    with tandem.load(mlp.path) as model:
        assert model.engine.ranks == 1
        np.testing.assert_allclose(model(x=mlp.inputs())["out"], mlp(mlp.inputs()), rtol=1e-4, atol=1e-4)
    assert model.closed


def test_what_an_engine_says(mlp):
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    (x,), (out,) = engine.inputs, engine.outputs
    assert (x.name, x.dtype, x.shape[1], x.per_rank) == ("x", "f32", 8, False)
    assert out.name == "out" and isinstance(out.shape[0], str)
    (collective,) = engine.collectives
    assert collective.operation == "all_reduce" and collective.axis == "tp" and collective.reduce == "sum"
    described = engine.describe()
    assert described["world_size"] == 2 and len(described["ranks"]) == 2
    assert engine.random_inputs()["x"].dtype == np.float32
    assert "tp=2" in repr(engine) and "x: f32" in repr(engine)


def test_other_number_of_ranks(mlp):
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    with pytest.raises(tandem.Error, match="2 ranks, 3 were asked") as caught:
        tandem.load(engine, ranks=3)
    assert caught.value.code == "mismatch"


def test_team_of_several_models(mlp, add_model):
    x = mlp.inputs()
    with tandem.Team(2) as team:
        first, second = team.load(tandem.build(mlp.path, mesh={"tp": 2})), team.load(tandem.build(mlp.path, mesh={"dp": 2}))
        np.testing.assert_allclose(first(x=x)["out"], second(x=x)["out"], rtol=1e-4, atol=1e-4)
        with pytest.raises(tandem.Error, match="1 ranks, 2 were asked"):
            team.load(tandem.build(add_model))
        second.close()
        assert team.models == (first,) and team.ranks == 2
    assert first.closed
    with pytest.raises(tandem.Error, match="closed"):
        team.load(mlp.path)
    with pytest.raises(tandem.Error):
        tandem.Team(0)


class Stop(Exception):
    pass


def test_progress(mlp, tmp_path: Path):
    told = []
    engine = tandem.build(mlp.path, mesh={"tp": 2}, progress=lambda what, done: told.append((what, done)))
    assert told and all(isinstance(what, str) and 0 <= done <= 1 for what, done in told)

    def stop(what: str, done: float) -> None:
        raise Stop(what)

    with pytest.raises(Stop):
        tandem.build(mlp.path, progress=stop)
    with pytest.raises(Stop, match="mlp.tandem"):
        engine.save(tmp_path / "mlp.tandem", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_engines_without_weights(mlp, tmp_path: Path):
    tandem.build(mlp.path, refittable=True).save(tmp_path / "bare.tandem", weights=False)
    bare = tandem.load_engine(tmp_path / "bare.tandem")
    assert not bare.has_weights
    for start in (tandem.load, tandem.Context):
        with pytest.raises(tandem.Error, match="without weights") as caught:
            start(bare)
        assert caught.value.code == "mismatch"
