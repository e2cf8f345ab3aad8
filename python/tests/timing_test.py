"""Kernels that are timed where an engine is loaded."""

import json

import numpy as np
import pytest
import tandem
from conftest import MODELS

MODEL = MODELS / "bert_legacy.onnx"


@pytest.fixture
def engine_file(tmp_path):
    path = tmp_path / "bert.tandem"
    tandem.build(MODEL, mesh={"tp": 2}).save(path)
    return path


def kernels(engine):
    return [step["kernel"] for step in engine.describe()["steps"]]


def times(engine):
    return [step["microseconds"] for step in engine.describe()["steps"] if step["microseconds"]]


def test_time_kernels(engine_file, tmp_path):
    cache = tmp_path / "times.json"
    engine = tandem.load_engine(engine_file)
    timed = tandem.time_kernels(engine, timing_cache=cache, threads=1)
    assert times(engine) == []
    known = json.loads(cache.read_text())
    again = tandem.time_kernels(engine, timing_cache=cache, threads=1)
    assert json.loads(cache.read_text()) == known  # nothing was measured
    assert (kernels(again), times(again)) == (kernels(timed), times(timed))
    saved = tmp_path / "timed.tandem"
    timed.save(saved)
    assert times(tandem.load_engine(saved)) == times(timed)
    built = tandem.build(MODEL, mesh={"tp": 2}, timed=True, timing_cache=cache, threads=1)
    assert json.loads(cache.read_text()) == known
    assert kernels(built) == kernels(timed)


@pytest.mark.parametrize("isolate", ["threads", "processes"])
def test_load(engine_file, tmp_path, isolate):
    cache = tmp_path / "times.json"
    inputs = tandem.load_engine(engine_file).random_inputs()
    with tandem.load(engine_file) as model:
        wanted = model(**inputs)
    assert not cache.exists()
    told = []
    with tandem.load(
        engine_file, isolate=isolate, threads=1, timed=True, timing_cache=cache, progress=lambda what, done: told.append((what, done))
    ) as model:
        outputs = model(**inputs)
    assert f"choosing kernels for {engine_file}" in {what for what, _ in told}
    known = json.loads(cache.read_text())
    with tandem.load(engine_file, isolate=isolate, threads=1, timed=True, timing_cache=cache) as model:
        for name, array in model(**inputs).items():
            np.testing.assert_array_equal(array, outputs[name])
            np.testing.assert_allclose(array, wanted[name], atol=1e-4)
    with tandem.Team(2, isolate=isolate, threads=1) as team:
        model = team.load(tandem.load_engine(engine_file), timed=True, timing_cache=cache)
        for name, array in model(**inputs).items():
            np.testing.assert_array_equal(array, outputs[name])
    with tandem.load(MODEL, threads=1, timed=True, timing_cache=tmp_path / "model.json") as model:
        assert set(model(**inputs)) == set(wanted)
    assert json.loads(cache.read_text()) == known


def test_what_is_refused(engine_file, tmp_path):
    cache = tmp_path / "times.json"
    with pytest.raises(tandem.errors.InvalidArgumentError, match="timed=True"):
        tandem.load(engine_file, timing_cache=cache)
    cache.write_text("thesis")
    with pytest.raises(tandem.errors.InvalidArgumentError, match="times.json is no timing cache"):
        tandem.load(engine_file, timed=True, timing_cache=cache)
    bare = tmp_path / "bare.tandem"
    tandem.build(MODEL, mesh={"tp": 2}, refittable=True).save(bare, weights=False)
    with pytest.raises(tandem.errors.MismatchError, match="tandem refit"):
        tandem.load(bare, timed=True)


def test_it_can_be_stopped(engine_file, tmp_path):
    cache = tmp_path / "times.json"

    def stop(what, done):
        raise KeyError(what)

    with pytest.raises(KeyError, match="choosing kernels"):
        tandem.time_kernels(tandem.load_engine(engine_file), timing_cache=cache, progress=stop)
    assert not cache.exists()
