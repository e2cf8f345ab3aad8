"""Signals, forks, threads, failing ranks and the end of the interpreter. Each case is a program of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tandem

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import tandem
path, x = sys.argv[1] if sys.argv[1:] else "", np.ones((6, 8), np.float32)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the program did not end: {out}{err}")
    return process.returncode, out, err


def run(code: str, *arguments: object) -> str:
    status, out, err = finish(start(code, *arguments))
    assert (status, err) == (0, ""), err
    return out


@pytest.fixture(scope="module")
def engines(mlp, tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("engines")
    files = {1: folder / "one.tandem", 2: folder / "two.tandem"}
    tandem.build(mlp.path).save(files[1])
    tandem.build(mlp.path, mesh={"tp": 2}).save(files[2])
    return files


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(word)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if int(task.name) != pid
        for word in (task / "children").read_text().split()
    ]


# --- Ctrl-C. The bar is half a second, measured by bench/python_call.py; here a wait must end long before the deadlines of 30 s and more.

NO_WAIT = 20


def interrupted(process: subprocess.Popen[str]) -> float:
    """Sends SIGINT once the program says "ready"; the seconds until it says that KeyboardInterrupt came."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # it is waiting now
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.stdout.readline() == "interrupted\n"
    return time.monotonic() - begin


def test_ctrl_c_ends_the_wait_for_a_stopped_rank(engines):
    process = start(
        """
        model = tandem.load(path, isolate="processes")
        model(x=x)
        for task in os.listdir("/proc/self/task"):
            for child in open(f"/proc/self/task/{task}/children").read().split():
                os.kill(int(child), signal.SIGSTOP)
        print("ready", flush=True)
        try:
            model(x=x)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        model.close()
        """,
        engines[2],
    )
    seconds = interrupted(process)
    assert finish(process)[::2] == (0, "")
    assert seconds < NO_WAIT


def test_ctrl_c_ends_the_wait_for_a_rank_that_does_not_come(engines):
    process = start(
        """
        context = tandem.Context(tandem.load_engine(path), rank=0)
        groups = tandem.Group.in_process(2)
        context.set_communicator(groups[0])
        print("ready", flush=True)
        try:
            context(x=x)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        engines[2],
    )
    assert interrupted(process) < NO_WAIT
    assert finish(process)[::2] == (0, "")


def test_ctrl_c_ends_the_wait_for_the_meeting(engines):
    process = start(
        """
        print("ready", flush=True)
        try:
            tandem.Group.join(1, 2, "localhost:29500", run_id=f"nobody.{os.getpid()}")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        engines[2],
    )
    assert interrupted(process) < NO_WAIT
    assert finish(process)[::2] == (0, "")


def test_ctrl_c_ends_a_long_run_and_the_model_stays_usable(folder):
    from conftest import save_onnx
    from onnx import TensorProto, helper

    nodes = [helper.make_node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"]) for i in range(300)]
    path = save_onnx(
        folder / "long.onnx",
        nodes,
        {"t0": (TensorProto.FLOAT, ["n", 640])},
        {"t300": (TensorProto.FLOAT, ["n", 640])},
        {"w": np.full((640, 640), 1 / 640, np.float32)},
    )
    process = start(
        """
        for mesh in (None, {"dp": 2}):
            model = tandem.load(tandem.build(path, mesh=mesh))
            model(t0=np.ones((2, 640), np.float32))
            print("ready", flush=True)
            try:
                while True:
                    model(t0=np.ones((4000, 640), np.float32))
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            model(t0=np.ones((2, 640), np.float32))
            model.close()
        """,
        path,
    )
    assert interrupted(process) < NO_WAIT
    assert interrupted(process) < NO_WAIT
    assert finish(process)[::2] == (0, "")


def test_a_handler_that_raises_nothing_does_not_end_the_call(engines):
    out = run(
        """
        signal.signal(signal.SIGALRM, lambda *_: print("handled"))
        context = tandem.Context(tandem.load_engine(path), rank=0, rendezvous_deadline=1)
        groups = tandem.Group.in_process(2)
        context.set_communicator(groups[0])
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            context(x=x)
        except tandem.Error as error:
            print(error.code, error.rank)
        """,
        engines[2],
    )
    assert out == "handled\ntimeout 1\n"


def test_signals_are_handled_while_weights_are_loaded():
    """Handlers run between two weights, not only once all are there: more often than just before and after the call."""
    out = run(
        """
        net = tandem.Network()
        y = net.input("x", "f32", ["n", 128])
        for i in range(200):
            y = y @ net.weight(f"w{i}", np.full((128, 128), 1 / 128, np.float32))
        net.output("y", y)
        engine, handled = net.build(progress=False), []
        signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
        for load in (tandem._core.Model, tandem._core.Context):
            for attempt in range(50):
                handled.clear()
                signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
                loaded = load(engine)
                often = len(handled)
                signal.setitimer(signal.ITIMER_REAL, 0)
                loaded.close()
                del loaded
                if often > 3:
                    break
            else:
                print(load)

        def enough(*_):
            raise KeyError("enough")

        signal.signal(signal.SIGALRM, enough)
        for attempt in range(50):
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            try:
                tandem.load(engine).close()
            except KeyError:
                break
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        with tandem.load(engine) as model:  # nothing is broken by it
            print(model(x=np.ones((1, 128), np.float32))["y"].sum())
        """
    )
    assert out == "128.0\n"


# --- processes and threads


@pytest.mark.parametrize("ranks", [1, 2])
def test_fork(engines, ranks):
    out = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        engine = tandem.load_engine(path)
        model, context = tandem.load(engine), tandem.Context(engine)
        model(x=x)
        child = os.fork()
        if child == 0:
            for call in (lambda: model(x=x), lambda: context.prepare()):
                try:
                    call()
                except tandem.Error as error:
                    print(error.code, "before a fork" in str(error), flush=True)
            model.close()
            with tandem.load(engine) as own:
                print(own(x=x)["out"].shape, flush=True)
            del model, context
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), model(x=x)["out"].shape)
        """,
        engines[ranks],
    )
    assert out == "invalid_argument True\ninvalid_argument True\n(6, 8)\n0 (6, 8)\n"


def test_spawn(engines, tmp_path):
    script = tmp_path / "spawn.py"
    script.write_text(
        "import multiprocessing, sys\nimport numpy as np\nimport tandem\n\n"
        "def work(path):\n    with tandem.load(path) as model:\n        return model(x=np.ones((6, 8), np.float32))['out'].shape\n\n"
        "if __name__ == '__main__':\n    model = tandem.load(sys.argv[1])\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n        print(pool.map(work, [sys.argv[1]] * 3))\n"
    )
    done = subprocess.run([sys.executable, script, engines[2]], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == f"{[(6, 8)] * 3}\n"


def test_models_in_many_threads(engines):
    out = run(
        """
        wrong = []
        engine = tandem.load_engine(path)
        with tandem.load(engine) as model:
            wanted = model(x=x)["out"]

        def work():
            for _ in range(5):
                with tandem.load(engine) as model:
                    for _ in range(20):
                        if not np.array_equal(model(x=x)["out"], wanted):
                            wrong.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(wrong))
        """,
        engines[2],
    )
    assert out == "0\n"


def test_the_gil_is_free_while_a_call_waits(engines):
    out = run(
        """
        context = tandem.Context(tandem.load_engine(path), rank=0, rendezvous_deadline=1)
        groups = tandem.Group.in_process(2)
        context.set_communicator(groups[0])
        ticks = []
        def tick():
            while not ticks or ticks[-1]:
                ticks.append(1)
                time.sleep(0.01)
        thread = threading.Thread(target=tick)
        thread.start()
        before = len(ticks)
        try:
            context(x=x)
        except tandem.Error:
            pass
        print(len(ticks) - before > 10)
        ticks.append(0)
        thread.join()
        """,
        engines[2],
    )
    assert out == "True\n"


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_gil_is_free_in_every_call_that_works_long(engines, mlp, ranks, tmp_path):
    """Python takes the GIL from no thread here: another one runs only where a call gives it up by itself."""
    out = run(
        """
        sys.setswitchinterval(3600)
        onnx, folder = sys.argv[2], sys.argv[3]
        engine = tandem.load_engine(path)
        context = tandem.Context(tandem.build(onnx))
        context.set_input_shape("x", [6, 8])
        network = tandem.Network.from_onnx(onnx)
        model = tandem.load(engine)
        group = tandem.Group.in_process(1)[0]
        calls = {
            "build": lambda: tandem.build(onnx, progress=False),
            "build of a network": lambda: network.build(progress=False),
            "from_onnx": lambda: tandem.Network.from_onnx(onnx),
            "load_engine": lambda: tandem.load_engine(path),
            "save": lambda: engine.save(folder + "/saved.tandem"),
            "to_bytes": lambda: engine.to_bytes(),
            "load": lambda: tandem._core.Model(engine).close(),
            "Context": lambda: tandem._core.Context(tandem.load_engine(path)),
            "prepare": lambda: context.prepare(),
            "context": lambda: context(x=x),
            "model": lambda: model(x=x),
            "run": lambda: model.run({"x": x}),
            "group": lambda: group.all_reduce(x),
            "barrier": lambda: group.barrier(),
            "none": lambda: None,
        }
        for name, call in calls.items():
            for attempt in range(2000):
                go, ran = threading.Event(), []
                thread = threading.Thread(target=lambda: (go.wait(), ran.append(1)))
                thread.start()
                go.set()
                call()
                freed = bool(ran)
                thread.join()
                if freed:
                    break
            else:
                print(name)
        """,
        engines[ranks],
        mlp.path,
        tmp_path,
    )
    assert out == "none\n"


# --- failing ranks


def test_a_rank_that_is_killed(engines):
    with tandem.load(engines[2], isolate="processes") as model:
        model(x=np.ones((6, 8), np.float32))
        ranks = sorted(children(os.getpid()))
        os.kill(ranks[-1], signal.SIGKILL)
        with pytest.raises(tandem.Error) as caught:
            model(x=np.ones((6, 8), np.float32))
        error = caught.value
        assert isinstance(error, tandem.errors.RankFailedError) and isinstance(error, RuntimeError)
        assert error.code == "rank_failed" and error.rank in (0, 1) and "killed by signal 9" in str(error)
        with pytest.raises(tandem.Error, match="killed by signal 9"):
            model(x=np.ones((6, 8), np.float32))


def test_a_rank_that_raises(engines):
    """A rank that is a thread of Python raises instead of running: the others get an error that names it."""
    out = run(
        """
        engine = tandem.load_engine(path)
        groups = tandem.Group.in_process(2)
        def rank(r):
            try:
                with tandem.Context(engine, rank=r) as context:
                    context.set_communicator(groups[r])
                    context(x=x)
                    if r == 1:
                        raise RuntimeError("mine")
                    context(x=x)
            except tandem.Error as error:
                print(r, error.code, error.rank)
            except RuntimeError:
                print(r, "raised")
                groups[r].abort("it raised")
        threads = [threading.Thread(target=rank, args=(r,)) for r in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
        engines[2],
    )
    assert sorted(out.splitlines())[1] == "1 raised"
    assert sorted(out.splitlines())[0] in ("0 aborted 1", "0 rank_failed 1")


# --- the end


ENDINGS = {
    "model alive": "model = tandem.load(path); model(x=x)",
    "processes alive": "model = tandem.load(path, isolate='processes'); model(x=x)",
    "engine and arrays alive": "engine = tandem.load_engine(path); out = tandem.load(engine)(x=x)",
    "team alive": "team = tandem.Team(tandem.load_engine(path).ranks); model = team.load(path); model(x=x)",
    "team of processes alive": "team = tandem.Team(tandem.load_engine(path).ranks, isolate='processes'); team.load(path)(x=x)",
    "in a cycle": "class A: pass\na = A(); a.me = a; a.model = tandem.load(path); a.model(x=x)",
    "in a module": "tandem.kept = tandem.load(path); tandem.kept(x=x); sys.kept = tandem.kept",
    "context and group alive": "groups = tandem.Group.in_process(2)\nc = tandem.Context(tandem.load_engine(path), rank=1)\nc.set_communicator(groups[1])",
    "used in an exit function": "import atexit\nmodel = tandem.load(path)\natexit.register(lambda: model(x=x))",
    "closed in an exit function": "import atexit\natexit.register(lambda: model.close())\nmodel = tandem.load(path)",
    "thread with a model": "def work():\n  global model\n  model = tandem.load(path)\n  model(x=x)\nt = threading.Thread(target=work); t.start()",
    "inputs of an exporter": "model = tandem.load(path)\nmodel(x=memoryview(x))\nkept = memoryview(x)",
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_interpreter_exit(engines, ranks, ending):
    if "rank=1" in ending and ranks == 1:
        ending = ending.replace("rank=1", "rank=0").replace("in_process(2)", "in_process(1)").replace("groups[1]", "groups[0]")
    assert run(ending, engines[ranks]) == ""


def test_interpreter_exit_while_a_thread_waits(engines):
    out = run(
        """
        context = tandem.Context(tandem.load_engine(path), rank=0)
        groups = tandem.Group.in_process(2)
        context.set_communicator(groups[0])
        def wait():
            try:
                context(x=x)
            except tandem.Error as error:
                print(f"{error.code}\\n", end="", flush=True)  # in one piece: the interpreter is going away
        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.3)
        """,
        engines[2],
    )
    assert out == "interrupted\n"


def test_exit_status_of_sys_exit(engines):
    assert finish(start("model = tandem.load(path); model(x=x); sys.exit(7)", engines[2])) == (7, "", "")


def test_an_error_at_the_end_is_the_only_thing_printed(engines):
    status, out, err = finish(start("model = tandem.load(path); model(x=x); raise KeyError('mine')", engines[2]))
    assert (status, out) == (1, "") and err.strip().endswith("KeyError: 'mine'") and "nanobind" not in err


def test_no_rank_process_is_left(engines):
    pids = run(
        """
        model = tandem.load(path, isolate="processes")
        for task in os.listdir("/proc/self/task"):
            print(open(f"/proc/self/task/{task}/children").read())
        """,
        engines[2],
    ).split()
    assert len(pids) == 2
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


def test_an_interpreter_that_is_to_have_no_gil_is_refused():
    code = "import sys; sys._is_gil_enabled = lambda: {}\ntry:\n  import tandem\n  print('imported')\nexcept ImportError as e: print(e)"
    for enabled, said in ((True, "imported"), (False, "tandem needs the GIL, which this interpreter was told to leave off")):
        done = subprocess.run([sys.executable, "-c", code.format(enabled)], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(said) and done.stderr == ""


def test_import_starts_no_threads():
    code = "import os, sys; import tandem; print(len(os.listdir('/proc/self/task')), 'numpy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False False\n"
