"""Programs that are a rank: groups of processes and of threads, collectives on arrays, contexts that are bound to them."""

import ctypes
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import uuid
from pathlib import Path

import numpy as np
import pytest
import tandem
from tandem.errors import AbortedError, DeadlineError, InvalidArgumentError, MismatchError, RankFailedError, UnsupportedError

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def environment(**variables) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    return clean | {"TORCHELASTIC_RUN_ID": uuid.uuid4().hex, "PYTHONUNBUFFERED": "1"} | {k: str(v) for k, v in variables.items()}


class Ranks:
    """`size` processes that run a script, each told its rank as torchrun does; killed at the end."""

    def __init__(self, size: int, *command: str, world_size: int | None = None, **variables) -> None:
        shared = environment(WORLD_SIZE=world_size or size, **variables)
        self.processes = [
            subprocess.Popen(
                [sys.executable, *command], env=shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for rank in range(size)
        ]

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def wait_for(self, rank: int, word: str) -> None:
        assert self.processes[rank].stdout.readline().strip() == word, self.processes[rank].communicate(timeout=60)

    def results(self) -> list[tuple[int, str, str]]:
        """Status, output and errors of each."""
        ended = [process.communicate(timeout=120) for process in self.processes]
        return [(process.returncode, *texts) for process, texts in zip(self.processes, ended, strict=True)]


def on_threads(size: int, life, **options) -> list:
    """life(group) on a thread per rank; what each returned, or raised."""
    results: list = [None] * size

    def rank(group: tandem.Group) -> None:
        try:
            results[group.rank] = life(group)
        except Exception as error:
            results[group.rank] = error
            if not isinstance(error, tandem.Error):
                group.abort(repr(error))

    threads = [threading.Thread(target=rank, args=(group,)) for group in tandem.Group.in_process(size, **options)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def values(size: int, life, **options) -> list:
    results = on_threads(size, life, **options)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def array_of(rank: int, shape=(4, 6), dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(rank).integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.uint8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_reductions(size, dtype):
    shape = (6, 2)
    inputs = np.stack([array_of(rank, shape, dtype) for rank in range(size)])
    for word, function in {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}.items():
        wanted = function(inputs, axis=0, **({"dtype": dtype} if word in ("sum", "prod") else {}))
        for got in values(size, lambda g, word=word: g.all_reduce(array_of(g.rank, shape, dtype), word)):
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, wanted)
        rooted = values(size, lambda g, word=word: g.reduce(array_of(g.rank, shape, dtype), word, root=size - 1))
        np.testing.assert_array_equal(rooted[size - 1], wanted)
        assert all(not part.any() for part in rooted[: size - 1])
        parts = values(size, lambda g, word=word: g.reduce_scatter(array_of(g.rank, shape, dtype), word))
        np.testing.assert_array_equal(np.concatenate(parts), wanted)


def test_moves():
    inputs = [array_of(rank) for rank in range(2)]
    for got in values(2, lambda g: g.all_gather(array_of(g.rank), axis=-1)):
        np.testing.assert_array_equal(got, np.concatenate(inputs, axis=1))
    gathered = values(2, lambda g: g.gather(array_of(g.rank), root=1))
    np.testing.assert_array_equal(gathered[1], np.concatenate(inputs))
    assert not gathered[0].any() and gathered[0].shape == (8, 6)
    for got in values(2, lambda g: g.broadcast(array_of(g.rank), root=1)):
        np.testing.assert_array_equal(got, inputs[1])
    np.testing.assert_array_equal(np.concatenate(values(2, lambda g: g.scatter(array_of(g.rank), root=1))), inputs[1])
    for rank, got in enumerate(values(2, lambda g: g.all_to_all(array_of(g.rank), split_axis=1, concat_axis=0))):
        np.testing.assert_array_equal(got, np.concatenate([whole[:, 3 * rank : 3 * rank + 3] for whole in inputs]))
    for rank, got in enumerate(values(3, lambda g: g.shift(array_of(g.rank), by=2))):
        np.testing.assert_array_equal(got, array_of((rank - 2) % 3))


def test_pairs_blobs_and_splits():
    def life(group):
        if group.rank == 0:
            group.send(array_of(9, (200, 300))[:, ::2], to=2)  # larger than what is buffered, and strided
        if group.rank == 2:
            got = np.empty((200, 150), np.float32)
            assert group.recv(got, source=0) is got
            np.testing.assert_array_equal(got, array_of(9, (200, 300))[:, ::2])
        assert group.exchange(b"x" * group.rank) == [b"", b"x", b"xx", b"xxx"]
        pair = group.split([[3, 0], [1, 2]])
        group.close()  # the smaller one stays
        assert pair.members == ((3, 0) if group.rank in (0, 3) else (1, 2))
        pair.barrier()
        return int(pair.all_gather(np.array([pair.rank]))[1])

    assert values(4, life) == [1, 1, 1, 1]
    assert [group is None for group in values(2, lambda g: g.split([[1]]))] == [True, False]


def test_into_the_callers_memory():
    def life(group):
        own = array_of(group.rank)
        address = own.ctypes.data
        assert group.all_reduce(own, out=own) is own and own.ctypes.data == address
        np.testing.assert_array_equal(own, array_of(0) + array_of(1))
        whole = np.empty((8, 6), np.float32)
        assert group.all_gather(array_of(group.rank), out=whole) is whole
        strided = array_of(group.rank, (4, 12))[:, ::2]
        np.testing.assert_array_equal(group.all_reduce(strided), array_of(0, (4, 12))[:, ::2] + array_of(1, (4, 12))[:, ::2])
        return whole

    for whole in values(2, life):
        np.testing.assert_array_equal(whole, np.concatenate([array_of(0), array_of(1)]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g, x: g.all_reduce(x, "mean"), "'mean' is no reduction"),
        (lambda g, x: g.all_reduce(x > 0), "does not work on bool"),
        (lambda g, x: g.all_reduce([1.0]), "expected an array"),
        (lambda g, x: g.all_gather(x, axis=2), "axis 2 is outside rank 2"),
        (lambda g, x: g.all_gather(x, axis=-3), "axis -1 is outside rank 2"),
        (lambda g, x: g.reduce_scatter(x[:3]), "dimension 0 of [3,6] has extent 3, which 2 ranks cannot share evenly"),
        (lambda g, x: g.broadcast(x, root=2), "root 2 is outside a group of 2 ranks"),
        (lambda g, x: g.all_reduce(x, out=np.empty((4, 5), np.float32)), "out is f32[4,5], expected f32[4,6]"),
        (lambda g, x: g.all_reduce(x, out=np.empty((4, 6))), "out is f64[4,6], expected f32[4,6]"),
        (lambda g, x: g.all_reduce(x, out=np.empty((4, 12), np.float32)[:, ::2]), "out is not contiguous"),
        (lambda g, x: g.all_reduce(x, out=np.frombuffer(bytes(96), np.float32).reshape(4, 6)), "out is read-only"),
        (lambda g, x: g.all_reduce(x[:3], out=x[1:]), "out overlaps"),
        (lambda g, x: g.all_to_all(x, out=x), "cannot work in place"),
        (lambda g, x: g.send(x, to=0), "rank 0 of 2 cannot send to rank 0"),
        (lambda g, x: g.recv(bytes(4), source=1), "out is read-only"),
        (lambda g, x: g.split([[0, 0]]), "more than once"),
        (lambda g, x: g.barrier() if g.all_reduce(x, deadline=-1) is None else None, "a deadline of -1"),
    ],
)
def test_bad_calls_leave_the_group_usable(call, words):
    groups = tandem.Group.in_process(2)
    with pytest.raises(tandem.Error, match=re.escape(words)):
        call(groups[0], array_of(0))
    other = threading.Thread(target=groups[1].all_reduce, args=(array_of(1),))
    other.start()
    np.testing.assert_array_equal(groups[0].all_reduce(array_of(0)), array_of(0) + array_of(1))
    other.join()


def test_other_libraries_arrays():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for got in values(2, lambda g: g.all_reduce(torch.full((3,), 1.0 + g.rank))):
        assert isinstance(got, torch.Tensor) and got.tolist() == [3.0, 3.0, 3.0]


def test_ranks_that_disagree_or_stay_away():
    results = on_threads(2, lambda g: g.all_reduce(array_of(0, (2 + g.rank,))))
    assert all(isinstance(error, MismatchError) and "ranks disagree" in str(error) for error in results)
    late = on_threads(2, lambda g: g.barrier() if g.rank == 0 else time.sleep(1), rendezvous_deadline=0.2)[0]
    assert isinstance(late, DeadlineError) and late.rank == 1
    late = on_threads(2, lambda g: g.all_reduce(array_of(0), deadline=0.2) if g.rank == 0 else time.sleep(1))[0]
    assert isinstance(late, DeadlineError) and late.rank == 1


def test_abort_and_leaving():
    results = on_threads(2, lambda g: g.barrier() if g.rank == 0 else g.abort("the end"))
    assert isinstance(results[0], AbortedError) and "the end" in str(results[0])
    results = on_threads(2, lambda g: g.barrier() if g.rank == 0 else g.close())
    assert isinstance(results[0], RankFailedError) and results[0].rank == 1


def test_one_thread_at_a_time_without_the_lock():
    groups = tandem.Group.in_process(2)
    waiting = threading.Thread(target=groups[0].barrier)
    waiting.start()
    counted = 0
    while counted < 100:  # runs while the other thread waits
        time.sleep(0.001)
        counted += 1
    assert waiting.is_alive()
    with pytest.raises(InvalidArgumentError, match="one thread at a time"):
        groups[0].barrier()
    groups[1].barrier()
    waiting.join()


def test_close_ends_a_call_of_another_thread():
    group = tandem.Group.in_process(2)[0]
    caught = []

    def wait() -> None:
        try:
            group.barrier()
        except tandem.Error as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    group.close()
    thread.join(timeout=5)
    assert group.closed and len(caught) == 1


def test_after_close():
    group = tandem.Group.in_process(1)[0]
    assert repr(group) == "Group(rank 0 of 1)" and not group.closed
    with group as same:
        assert same is group
    group.close()
    assert repr(group) == "Group(rank 0 of 1, closed)" and (group.rank, group.size) == (0, 1)
    for call in (lambda: group.barrier(), lambda: group.all_reduce(array_of(0)), lambda: group.members, lambda: group.abort("x")):
        with pytest.raises(InvalidArgumentError, match="the group is closed"):
            call()


def test_pickling_and_forks():
    group = tandem.Group.in_process(1)[0]
    with pytest.raises(TypeError, match="a Group cannot be pickled"):
        pickle.dumps(group)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            group.barrier()
        except InvalidArgumentError as error:
            status = 0 if "before a fork" in str(error) else 2
        group.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert group.exchange(b"still here") == [b"still here"]


def test_no_descriptors_are_left():
    def cycle() -> None:
        for group in tandem.Group.in_process(3):
            group.close()

    cycle()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        cycle()
    assert len(os.listdir("/proc/self/fd")) == before


# Contexts.


def test_contexts_of_thread_ranks(mlp):
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    x = mlp.inputs()

    def life(group):
        with tandem.Context(engine, rank=group.rank) as context, tandem.Context(engine, rank=group.rank) as other:
            context.set_communicator(group)
            other.set_communicator(group)
            outs = [context(x=x)["out"], other(x=x)["out"]]
            context.set_communicator(None)
            with pytest.raises(InvalidArgumentError, match="no group is bound"):
                context(x=x)
            context.set_communicator(group)
            group.close()  # the contexts keep it
            return [*outs, context(x=x)["out"], other(x=x)["out"]]

    for outs in values(2, life):
        for out in outs:
            np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)


def test_what_is_no_group(mlp):
    engine = tandem.build(mlp.path, mesh={"tp": 2})
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    nccl = type("Communicator", (), {"ptr": 1234})()
    with tandem.Context(engine, rank=1) as context:
        for communicator in (0x7F0012345678, capsule(1234, b"ncclComm_t", None), ctypes.c_void_p(1234), nccl):
            with pytest.raises(UnsupportedError, match="this engine is for CPU ranks, which take a tandem.Group"):
                context.set_communicator(communicator)
        with pytest.raises(InvalidArgumentError, match="a communicator is a tandem.Group or one of NCCL .*, not str"):
            context.set_communicator("nccl")
        with pytest.raises(MismatchError, match="the engine is for 2 ranks, the group has 3"):
            context.set_communicator(tandem.Group.in_process(3)[1])
        with pytest.raises(MismatchError, match="loaded for rank 1, the group says 0"):
            context.set_communicator(tandem.Group.in_process(2)[0])
        closed = tandem.Group.in_process(2)[1]
        closed.close()
        with pytest.raises(InvalidArgumentError, match="the group is closed"):
            context.set_communicator(closed)


# Processes.

JOIN = "import sys, time, tandem, numpy as np\n"


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_example_under_mpirun():
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "examples/python/ranks.py"]
    ended = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    said = sorted(ended.stdout.splitlines())
    assert [line[:12] for line in said] == ["rank 0 of 2:", "rank 1 of 2:"]
    assert said[0].split(": ", 1)[1] == said[1].split(": ", 1)[1]


def test_process_that_is_killed_is_named():
    script = JOIN + "g = tandem.Group.from_env()\nprint('in', flush=True)\nif g.rank == 1: time.sleep(60)\ng.all_reduce(np.ones(3))"
    with Ranks(3, "-c", script) as ranks:
        for rank in range(3):
            ranks.wait_for(rank, "in")
        ranks.processes[1].kill()
        results = ranks.results()
    for rank in (0, 2):
        assert results[rank][0] == 1
        assert "RankFailedError: rank 1: its process" in results[rank][2], results[rank][2]


def test_processes_that_do_not_come():
    script = JOIN + "tandem.Group.from_env(rendezvous_deadline=1.5)"
    with Ranks(2, "-c", script, world_size=4, MASTER_PORT=29501) as ranks:
        for status, _, err in ranks.results():
            assert status == 1 and "DeadlineError: rank 2: ranks 2, 3 of 4 did not come to 127.0.0.1:29501 in 1.5 s" in err, err


def test_ranks_that_disagree_about_their_number():
    script = (
        JOIN
        + "import os\nr = int(os.environ['RANK'])\ntandem.Group.join(r, 2 + r, 'localhost:29502', run_id=os.environ['TORCHELASTIC_RUN_ID'])"
    )
    with Ranks(2, "-c", script) as ranks:
        for status, _, err in ranks.results():
            assert status == 1 and "MismatchError: rank 1: rank 1" in err and "says that there are 3 ranks" in err, err


@pytest.mark.parametrize("where", ["join", "barrier", "context"])
def test_interrupt(where, mlp):
    """Ctrl-C ends a wait within 0.5 s as KeyboardInterrupt; the other rank hears of it."""
    calls = {
        "join": "print('in', flush=True)\ng = tandem.Group.from_env()",
        "barrier": "g = tandem.Group.from_env()\nprint('in', flush=True)\ng.barrier()",
        "context": f"g = tandem.Group.from_env()\nc = tandem.Context(tandem.build({str(mlp.path)!r}, mesh={{'tp': 2}}), rank=g.rank)\n"
        "c.set_communicator(g)\nprint('in', flush=True)\nc(x=np.ones((2, 8), np.float32))",
    }
    script = JOIN + calls[where].replace("g.barrier()", "time.sleep(60) if g.rank else g.barrier()").replace(
        "c(x=", "time.sleep(60) if g.rank else c(x="
    )
    with Ranks(1 if where == "join" else 2, "-c", script, world_size=2) as ranks:
        ranks.wait_for(0, "in")
        time.sleep(0.5)
        ranks.processes[0].send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, err = ranks.processes[0].communicate(timeout=10)
        assert time.monotonic() - begin < 0.5 + 1.0, "Python itself may take a second to end on a busy machine"
        assert "KeyboardInterrupt" in err and ranks.processes[0].returncode in (-signal.SIGINT, 130), err


@pytest.mark.parametrize("kept", ["group", "groups", "bound"])
def test_exit_with_groups_alive(kept, mlp):
    script = (
        JOIN
        + {
            "group": "g = tandem.Group.join(0, 1, 'localhost:29503')",
            "groups": "g = tandem.Group.in_process(2)\nimport threading\nthreading.Thread(target=g[0].barrier, daemon=True).start()\ntime.sleep(0.2)",
            "bound": f"g = tandem.Group.in_process(1)[0]\nc = tandem.Context(tandem.build({str(mlp.path)!r}))\nc.set_communicator(g)\n"
            "c(x=np.ones((2, 8), np.float32))",
        }[kept]
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60)
    if kept == "groups":  # the thread's own traceback may be printed
        assert ended.returncode == 0 and "Fatal" not in ended.stderr
    else:
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("variables", "error", "words"),
    [
        ({}, InvalidArgumentError, "nothing says which rank this is"),
        ({"RANK": "0"}, InvalidArgumentError, "RANK is set, WORLD_SIZE is not"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, InvalidArgumentError, "RANK is 'x', expected a number"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, UnsupportedError, "more than one host"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "192.0.2.1"}, UnsupportedError, "more than one host"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, InvalidArgumentError, "rank 2 is outside a group of 2 ranks"),
    ],
)
def test_environments(monkeypatch, variables, error, words):
    for name in (*LAUNCHED, "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=words):
        tandem.Group.from_env(rendezvous_deadline=0.2)


def stand_in_for_torch(monkeypatch, size: int):
    """torch.distributed as far as from_torch uses it, for ranks that are threads named by their number."""
    told: dict[int, object] = {}
    met = threading.Barrier(size)

    class Distributed(types.ModuleType):
        get_rank = staticmethod(lambda group: int(threading.current_thread().name))
        get_world_size = staticmethod(lambda group: size)

        @staticmethod
        def all_gather_object(into, mine, group):
            told[Distributed.get_rank(group)] = mine
            met.wait()
            into[:] = [told[rank] for rank in range(size)]

    torch = types.ModuleType("torch")
    torch.distributed = Distributed("torch.distributed")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed", torch.distributed)


@pytest.mark.parametrize("several_hosts", [False, True])
def test_from_process_group(monkeypatch, several_hosts):
    stand_in_for_torch(monkeypatch, 2)
    if several_hosts:
        monkeypatch.setattr(
            "tandem.torch_group._this_host", lambda: (f"node{threading.current_thread().name}", threading.current_thread().name)
        )
    results: list = [None, None]

    def life(rank: int) -> None:
        try:
            with tandem.Group.from_torch("a process group") as group:
                assert (group.rank, group.size) == (rank, 2)
                results[rank] = group.all_reduce(np.full(2, rank + 1.0)).tolist()
        except tandem.Error as error:
            results[rank] = error

    threads = [threading.Thread(target=life, args=(rank,), name=str(rank)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if several_hosts:
        assert all(isinstance(error, UnsupportedError) and "more than one host (node0, node1)" in str(error) for error in results)
    else:
        assert results == [[3.0, 3.0]] * 2
