"""What cannot be done is refused by an error that says what was expected, and leaves everything usable."""

import copy
import pickle
import threading

import numpy as np
import pytest
import tandem


@pytest.fixture(scope="module", params=["one rank", "two ranks", "processes", "context"])
def run(request, mlp):
    """Calls the model with inputs by name, in each of the ways there are."""
    if request.param == "context":
        with tandem.Context(tandem.build(mlp.path)) as context:
            yield context
        return
    mesh = None if request.param == "one rank" else {"tp": 2}
    with tandem.load(tandem.build(mlp.path, mesh=mesh), isolate="processes" if request.param == "processes" else "threads") as model:
        yield model


def refused(run, mlp, words, inputs, outputs=None):
    with pytest.raises(tandem.Error) as caught:
        run.run(inputs, outputs)
    error = caught.value
    assert error.code == "invalid_argument" and isinstance(error, ValueError), error
    for word in words:
        assert word in str(error), error
    x = mlp.inputs()  # nothing is broken by it
    np.testing.assert_allclose(run(x=x)["out"], mlp(x), rtol=1e-4, atol=1e-4)


def test_dtype(run, mlp):
    refused(run, mlp, ["'x'", "f64", "expected f32"], {"x": mlp.inputs().astype(np.float64)})
    refused(run, mlp, ["'x'", "i64", "expected f32"], {"x": mlp.inputs().astype(np.int64)})


def test_dtype_that_is_none(run, mlp):
    refused(run, mlp, ["'x'"], {"x": mlp.inputs().astype(np.complex64)})
    refused(run, mlp, ["'x'"], {"x": np.array(["a"])})
    refused(run, mlp, ["'x'"], {"x": np.array([object()])})
    refused(run, mlp, ["'x'"], {"x": mlp.inputs().astype(">f4")})
    refused(run, mlp, ["'x'"], {"x": np.zeros((6, 8), "datetime64[s]")})
    refused(run, mlp, ["'x'"], {"x": np.zeros((6, 8), [("a", "f4"), ("b", "f4")])})


def test_rank(run, mlp):
    refused(run, mlp, ["'x'"], {"x": mlp.inputs()[0]})
    refused(run, mlp, ["'x'"], {"x": mlp.inputs()[None]})
    refused(run, mlp, ["'x'"], {"x": np.float32(1)})


def test_shape(run, mlp):
    refused(run, mlp, ["'x'", "7", "8"], {"x": np.zeros((6, 7), np.float32)})


def test_names(run, mlp):
    x = mlp.inputs()
    refused(run, mlp, ["'y'", "'x'"], {"y": x})
    refused(run, mlp, ["'y'"], {"x": x, "y": x})
    refused(run, mlp, ["'x'", "missing", "f32"], {})
    refused(run, mlp, ["1"], {1: x})
    refused(run, mlp, ["no output 'x'", "'out'"], {"x": x}, {"x": x})
    with pytest.raises(tandem.Error, match="twice"):
        run({"x": x}, x=x)


def test_what_is_no_array(run, mlp):
    refused(run, mlp, ["'x'", "str", "expected an array"], {"x": "text"})
    refused(run, mlp, ["'x'", "NoneType"], {"x": None})
    refused(run, mlp, ["'x'", "list", "numpy.asarray"], {"x": [[1.0] * 8]})
    refused(run, mlp, ["'x'", "float"], {"x": 1.0})
    refused(run, mlp, ["by name"], [mlp.inputs()])


class OnGpu:
    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        raise AssertionError("must not be asked")


class Liar:
    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **_):
        return "not a capsule"


class Raises(Liar):
    def __dlpack__(self, **_):
        raise BufferError("not today")


def test_device(run, mlp):
    refused(run, mlp, ["'x'", "device", "cpu"], {"x": OnGpu()})


def test_exporters_that_fail(run, mlp):
    with pytest.raises((tandem.Error, ValueError, TypeError)):
        run(x=Liar())
    with pytest.raises(BufferError, match="not today"):
        run(x=Raises())
    np.testing.assert_allclose(run(x=mlp.inputs())["out"], mlp(mlp.inputs()), rtol=1e-4, atol=1e-4)


def test_arrays_for_outputs(run, mlp):
    x, good = mlp.inputs(), np.zeros((6, 8), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    refused(run, mlp, ["'out'", "read-only"], {"x": x}, {"out": frozen})
    refused(run, mlp, ["'out'", "not contiguous"], {"x": x}, {"out": np.zeros((6, 16), np.float32)[:, ::2]})
    refused(run, mlp, ["'out'", "not contiguous"], {"x": x}, {"out": good[::-1]})
    refused(run, mlp, ["'out'", "f64", "expected f32"], {"x": x}, {"out": np.zeros((6, 8))})
    refused(run, mlp, ["'out'", "[5,8]", "[6,8]"], {"x": x}, {"out": np.zeros((5, 8), np.float32)})
    refused(run, mlp, ["'out'", "shares memory", "'x'"], {"x": x}, {"out": x})
    refused(run, mlp, ["'out'", "read-only"], {"x": x}, {"out": bytes(good) and memoryview(frozen)})


def test_zero_size_where_there_must_be_something(run, mlp):
    out = None
    try:
        out = run(x=np.zeros((0, 8), np.float32))["out"]
    except tandem.Error as error:
        assert error.code == "invalid_argument" and "n = 0 is outside" in str(error)
    assert out is None or out.shape == (0, 8)
    np.testing.assert_allclose(run(x=mlp.inputs())["out"], mlp(mlp.inputs()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mesh", [None, {"tp": 2}])
def test_use_after_close(mlp, mesh):
    model = tandem.load(tandem.build(mlp.path, mesh=mesh))
    model.close()
    model.close()
    assert model.closed and model.engine.ranks >= 1 and model.last_copies == 0 and model.last_seconds == 0
    for call in (lambda: model(x=mlp.inputs()), lambda: model.run({"x": mlp.inputs()})):
        with pytest.raises(tandem.Error, match="closed") as caught:
            call()
        assert caught.value.code == "invalid_argument"


def test_context_after_close(mlp):
    context = tandem.Context(tandem.build(mlp.path))
    context.close()
    for call in (
        lambda: context(x=mlp.inputs()),
        context.prepare,
        lambda: context.set_communicator(None),
        lambda: context.output_shape("out"),
    ):
        with pytest.raises(tandem.Error, match="closed"):
            call()


@pytest.mark.parametrize("mesh", [None, {"tp": 2}])
def test_two_threads_at_once(mlp, mesh):
    """Every call either runs or is refused, and what runs is right."""
    x = np.tile(mlp.inputs(), (200, 1))
    wanted = mlp(x)
    done, refusals, wrong = [], [], []

    def many(model):
        for _ in range(30):
            try:
                out = model(x=x)["out"]
            except tandem.Error as error:
                (refusals if "one thread at a time" in str(error) else wrong).append(error)
            else:
                (done if np.allclose(out, wanted, rtol=1e-4, atol=1e-4) else wrong).append(1)

    with tandem.load(tandem.build(mlp.path, mesh=mesh)) as model:
        threads = [threading.Thread(target=many, args=(model,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:1]
    assert len(done) + len(refusals) == 90 and done


def test_a_thread_cannot_break_the_call_of_another(mlp):
    """While one call waits for its input's exporter, a second is refused."""

    class Slow:
        def __init__(self, values, model):
            self.values, self.model = values, model

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            with pytest.raises(tandem.Error, match="one thread at a time"):
                self.model(x=self.values)
            return self.values.__dlpack__(**options)

    with tandem.load(mlp.path) as model:
        x = mlp.inputs()
        np.testing.assert_allclose(model(x=Slow(x, model))["out"], mlp(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mesh", [None, {"tp": 2}])
def test_closed_by_its_own_call(mlp, mesh):
    class Closer:
        def __init__(self, values, model):
            self.values, self.model = values, model

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            with pytest.raises(tandem.Error, match="cannot be closed by what one of its own calls runs"):
                self.model.close()
            return self.values.__dlpack__(**options)

    with tandem.load(tandem.build(mlp.path, mesh=mesh)) as model:
        x = mlp.inputs()
        np.testing.assert_allclose(model(x=Closer(x, model))["out"], mlp(x), rtol=1e-4, atol=1e-4)


def test_closed_while_another_thread_waits(mlp):
    """The call ends as interrupted, and close returns when it has."""
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    context = tandem.Context(engine, rank=0)
    groups = tandem.Group.in_process(2)
    context.set_communicator(groups[0])
    ended = []

    def wait():
        try:
            context(x=mlp.inputs())
        except tandem.Error as error:
            ended.append(error.code)

    thread = threading.Thread(target=wait)
    thread.start()
    while True:  # until the call has begun
        try:
            context.output_shape("out")
        except tandem.Error as error:
            if "one thread at a time" in str(error):
                break
    context.close()
    thread.join()
    assert ended == ["interrupted"] and context.closed


def test_freed_while_in_use(mlp):
    """The last reference to an input goes away during the call: it is kept until the call has ended."""
    held = {"x": np.tile(mlp.inputs(), (2000, 1))}
    wanted = mlp(held["x"])
    with tandem.load(tandem.build(mlp.path, mesh={"tp": 2})) as model:
        for _ in range(5):
            box = [held["x"].copy()]
            inputs = {"x": box[0]}
            stop = threading.Event()

            def drop(inputs=inputs, box=box):
                inputs.clear()
                box.clear()
                stop.set()

            thread = threading.Thread(target=drop)
            thread.start()
            try:
                out = model(inputs)["out"]
            except tandem.Error as error:  # it was dropped before the call began
                assert "missing" in str(error)
                out = wanted
            thread.join()
            np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


def test_pickling(mlp):
    engine = tandem.build(mlp.path)
    with tandem.load(engine) as model, tandem.Context(engine) as context:
        for thing in (model, context, tandem.Group.in_process(1)[0], engine):
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(thing)
            with pytest.raises(TypeError):
                copy.deepcopy(thing)


def test_errors_can_be_pickled(mlp):
    with pytest.raises(tandem.Error) as caught:
        tandem.load(mlp.path, isolate="nothing")
    for error in (caught.value, tandem.errors.RankFailedError("gone", node='MatMul "a"', rank=3), tandem.errors.IoError("no file")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error)
        assert (again.code, again.rank, again.node) == (error.code, error.rank, error.node)


def test_weight_budget_is_for_gpus(mlp):
    engine = tandem.build(mlp.path)
    for call in (
        lambda: tandem.load(engine, weight_budget=1 << 20),
        lambda: tandem.load(engine, weight_budget=1 << 20, isolate="processes"),
        lambda: tandem.Context(engine, weight_budget=1 << 20),
        lambda: engine.create_context(weight_budget=1 << 20),
        lambda: engine.weight_memory(),
        lambda: engine.automatic_weight_budget(),
    ):
        with pytest.raises(tandem.Error, match="where the file is mapped") as caught:
            call()
        assert caught.value.code == "unsupported"


def test_errors_by_kind(tmp_path, mlp):
    for call, kind, code in [
        (lambda: tandem.load(tmp_path / "none.tandem"), OSError, "io"),
        (lambda: tandem.build(__file__), ValueError, "invalid_model"),
        (lambda: tandem.load_engine(__file__), ValueError, "invalid_engine"),
        (lambda: tandem.build(mlp.path, mesh={"tp": 3}), NotImplementedError, "unsupported"),
        (lambda: tandem.build(mlp.path, mesh="tp"), ValueError, "invalid_argument"),
        (lambda: tandem.build(mlp.path, mesh={"tp": 0}), ValueError, "invalid_argument"),
        (lambda: tandem.build(mlp.path, dtype="f8"), ValueError, "invalid_argument"),
        (lambda: tandem.load(mlp.path, step_deadline=0.1), ValueError, "invalid_argument"),
        (lambda: tandem.load(mlp.path, threads=-1), ValueError, "invalid_argument"),
        (lambda: tandem.load(mlp.path, ranks=2, drain_deadline=float("nan")), ValueError, "invalid_argument"),
    ]:
        with pytest.raises(tandem.Error) as caught:
            call()
        assert isinstance(caught.value, kind), caught.value
        assert caught.value.code == code, caught.value


def test_wrong_types_of_arguments(mlp):
    for call in (
        lambda: tandem.load(3),
        lambda: tandem.load(mlp.path, threads="many"),
        lambda: tandem.Context("engine"),
        lambda: tandem.Group.in_process("2"),
    ):
        with pytest.raises(TypeError):
            call()


def test_truncated_engine(mlp, tmp_path):
    file = tmp_path / "mlp.tandem"
    tandem.build(mlp.path).save(file)
    for size in (0, 4, 100, file.stat().st_size - 1):
        cut = tmp_path / "cut.tandem"
        cut.write_bytes(file.read_bytes()[:size])
        with pytest.raises(tandem.Error) as caught:
            tandem.load_engine(cut)
        assert caught.value.code in ("invalid_engine", "io")
