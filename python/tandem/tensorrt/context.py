"""IExecutionContext: one rank of an engine, running on memory of its user."""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import Context, Group
from ..errors import InvalidArgumentError, MismatchError, OutOfMemoryError
from .closed import Closed, unsupported
from .dtypes import Dims, volume
from .enums import TensorIOMode
from .logger import Logger, told

if TYPE_CHECKING:
    from .runtime import ICudaEngine

__all__ = ["IExecutionContext", "IOutputAllocator"]


def stream_number(stream: object) -> int:
    """A stream as TensorRT takes it, an int; or an object of torch, cupy, cuda.core and the like that has one."""
    for attribute in ("cuda_stream", "ptr", "handle"):
        if not isinstance(stream, int) and hasattr(stream, attribute):
            stream = getattr(stream, attribute)
    if isinstance(stream, bool) or not hasattr(stream, "__index__"):
        raise InvalidArgumentError(f"{type(stream).__name__} is no stream; expected its number, 0 for the default stream and on CPU ranks")
    return operator.index(stream)


def of_nccl(communicator: object) -> bool:
    """Whether it looks like an ncclComm_t: an address, a capsule, an object with `ptr` or `comm`."""
    if isinstance(communicator, (bool, Group)):
        return False
    if isinstance(communicator, int):
        return communicator != 0
    if isinstance(communicator, ctypes.c_void_p):
        return communicator.value is not None
    return type(communicator).__name__ == "PyCapsule" or any(isinstance(getattr(communicator, name, None), int) for name in ("ptr", "comm"))


def checked_group(communicator: object, device: str) -> Group:
    """A tandem.Group, made of what is NCCL's; UnsupportedError of that where ranks are on the CPU, InvalidArgumentError of what is none."""
    if isinstance(communicator, Group):
        return communicator
    kind = type(communicator)
    if of_nccl(communicator) and device == "cuda":
        return Group.from_nccl(communicator)
    if of_nccl(communicator):
        raise unsupported(
            f"a communicator of NCCL ({kind.__name__})",
            "it joins GPUs, and this engine is for CPU ranks: give a tandem.Group, such as Group.from_env()",
        )
    raise InvalidArgumentError(f"{kind.__name__} is no communicator; a tandem.Group is expected, such as Group.from_env()")


class IOutputAllocator:
    """Derive from it to give the memory of outputs when a run is about to write them: IExecutionContext.set_output_allocator."""

    def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
        """The address of `size` bytes; may be `memory`, what set_tensor_address said; 0 where there is none."""
        return self.reallocate_output(tensor_name, memory, size, alignment)

    def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
        """The same without a stream."""
        raise NotImplementedError(f"{type(self).__name__} has neither reallocate_output_async nor reallocate_output")

    def notify_shape(self, tensor_name: str, shape: Dims) -> None:
        """What is there, dense from the start."""


class IExecutionContext(Closed):
    """Activations of one rank; ICudaEngine.create_execution_context makes one. Serves one thread at a time.

    An engine of several ranks takes a communicator first: its rank decides which weights the context loads. Addresses are those of memory
    of the GPU, or of the host with CPU ranks: dense, row-major, of one rank's part of a tensor, alive and of the right size until the run
    has ended.
    """

    _missing = {
        "profiler": "`tandem run --trace` writes a timeline",
        "report_to_profiler": "`tandem run --trace` writes a timeline",
        "error_recorder": "errors are exceptions; the logger hears them too",
        "set_input_consumed_event": "when execute_async_v3 returns, inputs are consumed",
        "set_device_memory": "ranks on the CPU allocate host memory themselves",
        "device_memory": "ranks on the CPU allocate host memory themselves",
        "temporary_allocator": "ranks on the CPU allocate host memory themselves",
        "persistent_cache_limit": "ranks on the CPU have no such cache",
        "nvtx_verbosity": "there is no NVTX on the CPU",
        "set_shape_input": "shapes follow from shapes",
        "debug_sync": "a run on the CPU is always synchronous",
    }

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._logger = engine._logger
        self._name = ""
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, Dims] = {}
        self._group: Group | None = None
        self._profile = 0
        self._aux_streams: list[int] = []
        self._context: Context | None = None
        self._allocators: dict[str, IOutputAllocator] = {}

    @property
    def engine(self) -> ICudaEngine:
        """What it runs."""
        return self._engine

    @property
    def name(self) -> str:
        """A name for the user's own use."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def num_ranks(self) -> int:
        """Ours, not TensorRT's: how many ranks run the engine together."""
        return self._engine.num_ranks

    @property
    def _device(self) -> str:
        return self._engine._engine.device

    # Ranks

    def set_communicator(self, communicator: object) -> bool:
        """Binds the ranks that this one runs with: a tandem.Group; None releases them. Local, never waits, in any order on the ranks, and
        again. A single-rank engine takes one too, with a notice. Returns True.

        An engine for GPUs takes an ncclComm_t too: an int, a capsule, an object with `ptr` (nccl4py) or `comm` (cupy). It stays the
        caller's, and is not to be used between the first run and the release of the context. Raises MismatchError for a group of another
        size than the engine's, UnsupportedError for an ncclComm_t on CPU ranks, InvalidArgumentError for one that NCCL does not know.
        """
        with told(self._logger):
            if self.num_ranks == 1 and self._device == "cuda" and of_nccl(communicator):
                self._logger.log(Logger.WARNING, "the engine is for one rank and communicates with none of this communicator of NCCL")
                return True
            group = None if communicator is None else checked_group(communicator, self._device)
            if group is not None and self.num_ranks == 1:
                self._logger.log(
                    Logger.WARNING, f"the engine is for one rank and communicates with none of the {group.size} of this communicator"
                )
                return True
            if group is not None and group.size != self.num_ranks:
                raise MismatchError(f"the engine is for {self.num_ranks} ranks, the communicator has {group.size}")
            if group is not None and not self._engine._engine.collectives:
                self._logger.log(
                    Logger.WARNING, f"the engine has no collectives: it does not communicate with the {group.size} of this communicator"
                )
            if self._context is not None and group is not None and self._context.rank != group.rank:
                self._context = None
            if self._context is not None:
                self._context.set_communicator(group)
            self._group = group
        return True

    def _bound(self) -> Context:
        """The rank itself, once it is known which one."""
        if self._context is None:
            if self.num_ranks > 1 and self._group is None:
                raise InvalidArgumentError(f"the engine is for {self.num_ranks} ranks: call set_communicator() on every rank first")
            self._context = Context(
                self._engine._engine,
                rank=self._group.rank if self._group else 0,
                threads=self._engine._threads,
                profile=self._profile,
                weight_budget=self._engine._budget,
            )
            if self._group is not None:
                self._context.set_communicator(self._group)
            self._context.set_auxiliary_streams(self._aux_streams)
            for name in self._engine._input_names:
                shape = self._shapes.get(name, self._engine.get_tensor_shape(name))
                if -1 not in shape:
                    self._context.set_local_input_shape(name, shape)
        return self._context

    # Shapes

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """The shape of this rank's part of an input, in elements. Returns True; what it means for other tensors is checked by the next call
        that needs it. Raises InvalidArgumentError for another rank or other fixed extents than the engine's."""
        with told(self._logger):
            if self._engine.get_tensor_mode(name) != TensorIOMode.INPUT:
                raise InvalidArgumentError(f"the engine has no input '{name}'; it has {', '.join(self._engine._input_names)}")
            expected, given = self._engine.get_tensor_shape(name), Dims(shape)
            if len(expected) != len(given) or any(e not in (-1, g) or g < 0 for e, g in zip(expected, given, strict=True)):
                raise InvalidArgumentError(f"input '{name}' cannot be {given}: the engine takes {expected}, -1 standing for any extent")
            self._shapes[name] = given
            if self._context is not None:
                self._context.set_local_input_shape(name, given)
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        """The shape of this rank's part of a tensor, by the input shapes set so far; -1 for what they leave open, and, before a run and
        after, for extents that depend on data: an output allocator is told those."""
        static = self._engine.get_tensor_shape(name)
        if -1 not in static:
            return static
        if name in self._engine._input_names:
            return self._shapes.get(name, static)
        if not self.all_binding_shapes_specified:
            return static
        with told(self._logger):
            context = self._bound()
            measured = context.measured_dims(name)
            return Dims(-1 if depends else extent for extent, depends in zip(context.output_shape(name), measured, strict=True))

    def get_tensor_strides(self, name: str) -> Dims:
        """Elements from one index to the next, per dimension: dense and row-major."""
        shape = self.get_tensor_shape(name)
        return Dims(volume(shape[d + 1 :]) if -1 not in shape else -1 for d in range(len(shape)))

    def get_max_output_size(self, name: str) -> int:
        """Bytes that an output takes for the largest shapes of the profile in use."""
        largest = self._engine.get_tensor_profile_shape(name, self._profile)[2]
        return math.ceil(volume(largest) * self._engine.get_tensor_dtype(name).itemsize)

    def infer_shapes(self) -> list[str]:
        """Names of the inputs whose shapes are still missing; empty if all outputs have one."""
        missing = [name for name in self._engine._input_names if -1 in self.get_tensor_shape(name)]
        if not missing:
            for name in self._engine._output_names:
                self.get_tensor_shape(name)
        return missing

    @property
    def all_binding_shapes_specified(self) -> bool:
        """Whether every input has a shape."""
        return all(-1 not in self.get_tensor_shape(name) for name in self._engine._input_names)

    @property
    def all_shape_inputs_specified(self) -> bool:
        """True: no input's contents decide a shape."""
        return True

    @property
    def active_optimization_profile(self) -> int:
        """The profile whose program runs; 0 from the start."""
        return self._profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: object) -> bool:
        """The profile whose program runs from now on. Shapes that are set stay, and must fit it. Between calls at any time: work that was
        given goes on, so the stream has nothing to wait for. All ranks must use the same one; the next call compares.
        """
        with told(self._logger):
            self._engine._check_profile(profile_index)
            self._check_stream(stream_handle)
            if self._context is not None:
                self._context.set_profile(max(0, profile_index))
            self._profile = max(0, profile_index)
        return True

    # Running

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """The address of this rank's part of an input or output, in memory of the GPU or, with CPU ranks, the host; 0 to forget it. Returns
        True."""
        with told(self._logger):
            self._engine._port(name)
            if isinstance(memory, bool) or not isinstance(memory, int):
                raise InvalidArgumentError(
                    f"the address of '{name}' is {type(memory).__name__}, expected an int, such as array.ctypes.data or tensor.data_ptr()"
                )
            self._addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        """The address that was set; 0 if none was."""
        self._engine._port(name)
        return self._addresses.get(name, 0)

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator | None) -> bool:
        """Whom each run asks for the memory of an output, before anything is computed; None: the address that was set counts again. Of an
        output whose shape depends on data it is asked for what the largest takes, and told the shape when the run has measured it.
        Returns True."""
        with told(self._logger):
            if self._engine.get_tensor_mode(name) != TensorIOMode.OUTPUT:
                raise InvalidArgumentError(f"the engine has no output '{name}'; it has {', '.join(self._engine._output_names)}")
            if output_allocator is None:
                self._allocators.pop(name, None)
            else:
                self._allocators[name] = output_allocator
        return True

    def get_output_allocator(self, name: str) -> IOutputAllocator | None:
        """The one that was set; None if none was."""
        return self._allocators.get(name)

    def _allocated(self, context: Context, stream: int) -> dict[str, int]:
        """The addresses of tensors, with what allocators give."""
        addresses = dict(self._addresses)
        for name, allocator in self._allocators.items():
            size = math.ceil(volume(context.output_shape(name)) * self._engine.get_tensor_dtype(name).itemsize)
            given = allocator.reallocate_output_async(name, self.get_tensor_address(name), size, 256, stream)
            if not given and size:
                raise OutOfMemoryError(f"{size} bytes are needed for output '{name}', its allocator has none")
            addresses[name] = given or 0
        return addresses

    def set_aux_streams(self, aux_streams: Sequence[object]) -> None:
        """Streams of the caller's for what runs beside the one given: exchanges beside attention over ranks. Those beyond
        engine.num_aux_streams are left alone, missing ones are the context's own. Raises InvalidArgumentError for the default stream, one
        that occurs twice and one of another GPU.
        """
        with told(self._logger):
            streams = [stream_number(stream) for stream in aux_streams][: self._engine.num_aux_streams]
            if self._context is not None:
                self._context.set_auxiliary_streams(streams)
            self._aux_streams = streams

    def _check_stream(self, stream: object) -> None:
        if stream_number(stream) != 0 and self._device == "cpu":
            raise unsupported(f"stream {stream_number(stream):#x}", "an engine of CPU ranks runs on the thread that calls: pass 0")

    def execute_async_v3(self, stream_handle: object) -> bool:
        """On a GPU: gives the work of this rank to a stream of the caller's, 0 being CUDA's default stream, and returns True without
        waiting for it; within a capture it becomes part of the graph, which wants a run of the same shapes before. On the CPU: runs this
        rank on the thread that calls; pass stream 0. When it returns True outputs are written and inputs consumed.

        All ranks must call; if one does not, the others get an error that names it once the deadline is over.

        Raises InvalidArgumentError before anything runs: no communicator, a tensor without address or shape; RankFailedError or
        DeadlineError naming a rank; then the group and the context are of no more use.
        """
        with told(self._logger):
            self._check_stream(stream_handle)
            context = self._bound()
            missing = [
                name
                for name in self._engine._ports
                if not self._addresses.get(name) and name not in self._allocators and 0 not in self.get_tensor_shape(name)
            ]
            if missing:
                raise InvalidArgumentError(
                    f"{', '.join(missing)}: no address was set; call set_tensor_address() for every input and output"
                )
            shapeless = [name for name in self._engine._input_names if -1 in self.get_tensor_shape(name)]
            if shapeless:
                raise InvalidArgumentError(
                    f"{', '.join(shapeless)}: no shape was set; call set_input_shape() for every input that needs one"
                )
            stream = stream_number(stream_handle)
            context.run_addresses(self._allocated(context, stream), stream)
            for name, allocator in self._allocators.items():
                allocator.notify_shape(name, Dims(context.last_output_shape(name)))
        return True

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        """The same with one address per tensor, in the order of the engine; returns when it is done."""
        names = [*self._engine._input_names, *self._engine._output_names]
        if len(bindings) != len(names):
            raise InvalidArgumentError(f"{len(bindings)} addresses are given, expected {len(names)}: {', '.join(names)}")
        for name, address in zip(names, bindings, strict=True):
            self.set_tensor_address(name, address)
        done = self.execute_async_v3(0)
        with told(self._logger):
            self._bound().synchronize()
        return done
