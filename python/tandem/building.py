"""build and load: from models to engines, and from engines to models that run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from . import _core
from ._core import Engine, Model
from .errors import InvalidArgumentError, MismatchError
from .mesh import Mesh
from .network import Network
from .progress import Progress as Bar
from .progress import watched

__all__ = ["build", "load", "time_kernels"]

Progress = Callable[[str, float], object]


def _mesh_text(mesh: Mesh | Mapping[str, int] | str | None) -> str:
    if mesh is None:
        return ""
    return str(Mesh.parse(mesh) if isinstance(mesh, str) else mesh if isinstance(mesh, Mesh) else Mesh(mesh))


def _profiles(profiles: Iterable[Mapping[str, str]] | None) -> list[dict[str, str]]:
    if profiles is None:
        return []
    given = [profiles] if isinstance(profiles, (str, Mapping)) else list(profiles)
    if isinstance(profiles, (str, Mapping)) or not all(isinstance(profile, Mapping) for profile in given):
        raise InvalidArgumentError(f"profiles is {profiles!r}, expected a list with a dict of shapes for each optimization profile")
    if not given:
        raise InvalidArgumentError(
            "profiles is empty, expected the shapes of one optimization profile at least; leave it out for the default ranges"
        )
    return [dict(profile) for profile in given]


@watched
def build(
    model: str | os.PathLike[str] | Network,
    *,
    device: Literal["", "cpu", "cuda"] = "",
    target: str = "",
    mesh: Mesh | Mapping[str, int] | str | None = None,
    ranks: int = 0,
    strategies: Mapping[str, str] | None = None,
    io: Mapping[str, str] | None = None,
    shapes: Mapping[str, str] | None = None,
    profiles: Iterable[Mapping[str, str]] | None = None,
    dtype: Literal["", "f16", "bf16"] = "",
    weights: Literal["", "int8", "int4", "fp8"] = "",
    channels_last: Literal["", "auto", "all", "none"] = "",
    tf32: bool = False,
    refittable: bool = False,
    timed: bool = False,
    timing_cache: str | os.PathLike[str] = "",
    kernels: Iterable[str] = (),
    disabled_passes: Iterable[str] = (),
    dump: str | os.PathLike[str] = "",
    threads: int = 0,
    progress: Progress | bool | None = None,
) -> Engine:
    """Compiles a model into an Engine for all its ranks.

    Args:
        model: an ONNX file, or a Network; "{rank}" in a name stands for one file per rank, as other tools write them.
        device: what its ranks run on; "": the CPU.
        target: the GPU it is for, like "sm_90a", for which none need be here; "": any that this package has kernels for.
        mesh: the ranks as named axes, such as {"tp": 2}; an axis tp, cp or dp splits heads and hidden units, the sequence, or the batch.
        ranks: without a mesh: how many ranks a file is for that is sharded already; of others, the cheapest mesh of so many ranks is taken.
        strategies: for axes of other names: axis to "tp", "cp" or "dp".
        io: inputs and outputs that are to lie otherwise than the strategies say: name to "same" or "DIM:AXIS[,DIM:AXIS...]".
        shapes: per input its shape, "8x128", or its smallest, typical and largest, "1x8:8x64:64x512"; in elements.
        profiles: several optimization profiles: for each the inputs' shapes, as above, before those of `shapes`. The engine then has a
        program
            for each, with kernels chosen for its typical shapes, and the weights once. They may overlap.
        dtype: compute f32 products and what lies between them in this type; norms, softmax, inputs and outputs stay.
        weights: quantise the matrices of products: int8 and fp8 with a scale per column, int4 with one per 64 or 32 rows of a column.
        channels_last: keep the channels of images last between convolutions: "auto", where 16-bit floats gain by it; "all", where possible;
            "none". By default "auto" for GPUs and "none" for CPUs.
        tf32: on GPUs, operands of f32 products and convolutions may be rounded to TF32 (10 bits of mantissa), which tensor cores multiply;
            all else stays f32. On CPUs it changes nothing, which a notice says.
        refittable: compute nothing with the contents of weights, so that a refit reaches all of them.
        timed: choose among kernels by running them; else by rule, the same on every machine.
        timing_cache: a file of measured times, read and added to.
        kernels: names of kernels to take wherever they can run.
        disabled_passes: names of graph rewrites to leave out.
        dump: a folder for the graph after each rewrite.
        threads: per rank while timing; 0: cores / ranks.
        progress: a function that is told what is being done and how much of it, 0 to 1, and may raise to stop; True or False shows a bar or
        none;
            by default there is one on a terminal and in notebooks once the build takes more than a second.

    Raises:
        InvalidModelError, UnsupportedError: the message names the node and the reason.
        InvalidArgumentError: of an option that makes no sense for this model.
        IoError: of a file that cannot be read.
    """
    if isinstance(progress, bool):
        progress = None  # `watched` has seen to it
    options = _core._BuildOptions()
    options.device = device or ("cuda" if target.startswith("sm_") else "")
    options.target = target
    options.mesh = _mesh_text(mesh)
    options.ranks = ranks
    options.strategies = dict(strategies or {})
    options.io = dict(io or {})
    options.shapes = dict(shapes or {})
    options.profiles = _profiles(profiles)
    options.dtype = dtype
    options.weights = weights
    options.channels_last = channels_last
    options.tf32 = tf32
    options.refittable = refittable
    options.timed = timed
    options.timing_cache = os.fspath(timing_cache)
    options.kernels = list(kernels)
    options.disabled_passes = list(disabled_passes)
    options.dump = os.fspath(dump)
    options.threads = threads
    if dtype not in ("", "f16", "bf16"):
        raise InvalidArgumentError(f"dtype is {dtype!r}, expected 'f16' or 'bf16'")
    if weights not in ("", "int8", "int4", "fp8"):
        raise InvalidArgumentError(f"weights are {weights!r}, expected 'int8', 'int4' or 'fp8'")
    if channels_last not in ("", "auto", "all", "none"):
        raise InvalidArgumentError(f"channels_last is {channels_last!r}, expected 'auto', 'all' or 'none'")
    if isinstance(model, Network):
        return model._build(options, progress)
    return _core._build(model, options, progress)


def time_kernels(
    engine: Engine,
    *,
    timing_cache: str | os.PathLike[str] = "",
    threads: int = 0,
    progress: Progress | bool | None = None,
) -> Engine:
    """An engine like this one, with kernels and algorithms chosen by running them here where its build chose by rule.

    For engines that were built elsewhere, such as on a machine without their GPU; `load(timed=True)` does this first. All ranks get the
    same choice. What was timed before, program, weights, memory and what ranks send stay as they are. Where the ranks are programs of their
    own, one of them times and saves, and all load that.

    Args:
        engine: with its weights; it is left as it is.
        timing_cache: a file of measured times, read and added to.
        threads: per rank while timing; 0: cores / ranks.
        progress: who is told how much is done, as `build` has it.

    Raises:
        InvalidArgumentError: of a file that is no timing cache.
        MismatchError: of an engine without weights, or for another GPU than the one here.
        UnsupportedError: where there is no such device.
    """
    with Bar(progress) as bar:
        return _core._time_kernels(engine, timing_cache, threads, bar.callback)


def load(
    model: str | os.PathLike[str] | Engine | Network,
    *,
    device: Literal["", "cpu", "cuda"] = "",
    ranks: int | None = None,
    timed: bool = False,
    timing_cache: str | os.PathLike[str] = "",
    isolate: Literal["threads", "processes"] = "threads",
    threads: int = 0,
    step_deadline: float = 30.0,
    load_deadline: float = 120.0,
    rendezvous_deadline: float = 60.0,
    drain_deadline: float = 10.0,
    weight_budget: int | None = None,
    progress: Progress | bool | None = None,
) -> Model:
    """Starts the ranks of an engine and returns them as one Model, which is also a context manager.

    Args:
        model: an engine file ("{rank}" in its name: one per rank), an Engine, or an ONNX file or a Network, which is built for `ranks` in
        memory.
        device: what the ranks run on; "": the engine's own, for other models the CPU. Another than the engine's is a MismatchError.
        ranks: how many ranks; an engine knows its own, and another number is a MismatchError.
        timed: choose among kernels by running them before the ranks start, in an engine where its build chose by rule, see `time_kernels`;
            else as the engine has it, or by rule.
        timing_cache: of `timed`: a file of measured times, read and added to.
        isolate: ranks as threads of this process, or each as a process of its own, whose end cannot take the others along.
        threads: that each rank computes with; 0: cores / ranks.
        step_deadline: seconds without progress after which a rank counts as stuck, at least 1.
        load_deadline: seconds that loading may take.
        rendezvous_deadline: seconds that ranks wait for each other at the start.
        drain_deadline: seconds that ranks get to end.
        weight_budget: bytes of each rank's GPU that its weights may take; None: all of them lie there. Those that have no room stay on the
            host and are copied to the GPU in each run, just before the steps that read them, with the same results.
            `engine.weight_memory()` says what is needed. Not for CPU ranks, which read weights where the file is mapped: an
            UnsupportedError.
        progress: who is told how much of building and loading is done, as `build` has it.

    Raises:
        MismatchError, InvalidEngineError, IoError: of the engine.
        InvalidArgumentError: of a weight budget that is too small, with the least.
        RankFailedError, DeadlineError: naming a rank that did not start.
    """
    if timing_cache and not timed:
        raise InvalidArgumentError("timing_cache is given, but not timed=True: nothing would be timed")
    times_engine = timed
    if not isinstance(model, Engine):
        if not isinstance(model, Network) and _core.is_engine_file(model):
            model = _core.load_engine(model)
        else:
            asked = ranks if ranks and ranks > 1 else 0
            times_engine = False
            model = build(model, device=device, ranks=asked, timed=timed, timing_cache=timing_cache, threads=threads, progress=progress)
    if device not in ("", model.device):
        raise MismatchError(f"the engine is for the device {model.device}, not {device}; build it for that")
    if ranks is not None and ranks != model.ranks:
        raise MismatchError(f"the engine is for {model.ranks} ranks, {ranks} were asked for; build it for a mesh of {ranks}")
    if times_engine:
        model = time_kernels(model, timing_cache=timing_cache, threads=threads, progress=progress)
    with Bar(progress) as bar:
        return Model(
            model,
            isolate=isolate,
            threads=threads,
            step_deadline=step_deadline,
            load_deadline=load_deadline,
            rendezvous_deadline=rendezvous_deadline,
            drain_deadline=drain_deadline,
            weight_budget=weight_budget,
            progress=bar.callback,
        )
