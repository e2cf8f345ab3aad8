"""Runtime and ICudaEngine: engines from bytes, and what they say of themselves."""

from __future__ import annotations

from typing import Any, cast

from .._core import Engine, WeightMemory, load_engine
from ..errors import InvalidArgumentError
from .closed import Closed, unsupported
from .context import IExecutionContext
from .dtypes import DataType, Dims, from_word
from .entry import EntryPoint
from .enums import (
    EngineCapability,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    ProfilingVerbosity,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
)
from .inspector import EngineInspector
from .logger import ILogger, told
from .memory import IHostMemory

__all__ = ["ICudaEngine", "Runtime"]


class Runtime(EntryPoint):
    """Makes engines from bytes. Engines may outlive it."""

    _missing = {
        "DLA_core": "there is no DLA",
        "load_runtime": "there is no lean runtime",
        "temporary_directory": "nothing is written to files",
    }

    def deserialize_cuda_engine(self, serialized_engine: object) -> ICudaEngine:
        """An engine from the bytes of one: IHostMemory, bytes, or any buffer; not copied where it is aligned to 64 bytes.

        Raises InvalidEngineError saying what was expected and what was found, also for engines of TensorRT itself.
        """
        with told(self._logger):
            return ICudaEngine(load_engine(cast(Any, serialized_engine)), self._logger, self._threads)


class ICudaEngine(Closed):
    """An engine, immutable, shared by any number of contexts and threads; one for all ranks. The name is TensorRT's: it may run on CPU
    ranks.

    Inputs come first, then outputs. Shapes are those of what one rank holds, -1 where each run chooses.
    """

    _missing = {
        "create_runtime_config": "create_execution_context takes a strategy",
        "error_recorder": "errors are exceptions; the logger hears them too",
        "create_execution_context_without_device_memory": "ranks on the CPU allocate host memory themselves",
    }

    def __init__(self, engine: Engine, logger: ILogger, threads: int) -> None:
        self._engine = engine
        self._logger = logger
        self._threads = threads
        self._described: dict[str, Any] = engine.describe()
        self._budget: int | None = None
        self._input_names = [port.name for port in engine.inputs]
        self._output_names = [port.name for port in engine.outputs]
        ports = [*self._described["inputs"], *self._described["outputs"]]
        self._ports: dict[str, dict[str, Any]] = {port["name"]: port for port in ports}

    def _port(self, name: str) -> dict[str, Any]:
        if name not in self._ports:
            raise InvalidArgumentError(f"the engine has no tensor '{name}'; it has {', '.join(self._ports)}")
        return self._ports[name]

    @property
    def tandem_engine(self) -> Engine:
        """Ours, not TensorRT's: the engine for tandem.load and tandem.Context."""
        return self._engine

    @property
    def num_ranks(self) -> int:
        """Ours, not TensorRT's: how many ranks run it together; above 1, each context takes a communicator."""
        return self._engine.ranks

    @property
    def name(self) -> str:
        """Empty: engine files carry no name."""
        return ""

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs."""
        return len(self._ports)

    def get_tensor_name(self, index: int) -> str:
        """The name of input or output `index`, inputs first."""
        names = [*self._input_names, *self._output_names]
        if not 0 <= index < len(names):
            raise InvalidArgumentError(f"there is no tensor {index}; there are {len(names)}")
        return names[index]

    def __getitem__(self, index: int) -> str:
        return self.get_tensor_name(index)

    def __len__(self) -> int:
        return self.num_io_tensors

    def __bool__(self) -> bool:
        return True

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """INPUT, OUTPUT, or NONE for a name that is neither."""
        return TensorIOMode.INPUT if name in self._input_names else TensorIOMode.OUTPUT if name in self._output_names else TensorIOMode.NONE

    def get_tensor_dtype(self, name: str) -> DataType:
        """The type of its elements."""
        return from_word(self._port(name)["dtype"])

    def get_tensor_shape(self, name: str) -> Dims:
        """Extents of one rank's part, in elements; -1 where each run chooses."""
        return Dims(extent if isinstance(extent, int) else -1 for extent in self._port(name)["local_shape"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """The smallest, typical and largest shape of one rank's part; of outputs too."""
        self._check_profile(profile_index)
        self._port(name)
        profile = self._described["profiles"][max(0, profile_index)]
        return [Dims(shape) for port in (*profile["inputs"], *profile["outputs"]) if port["name"] == name for shape in port["local_range"]]

    def _check_profile(self, index: int) -> None:
        """-1 stands for 0, as TensorRT has it where a profile may be left out."""
        if not -1 <= index < self.num_optimization_profiles:
            raise InvalidArgumentError(f"there is no optimization profile {index}; the engine has {self.num_optimization_profiles}, from 0")

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Where its address leads: DEVICE of an engine for a GPU, HOST of one for CPU ranks."""
        self._port(name)
        return TensorLocation.DEVICE if self._engine.device == "cuda" else TensorLocation.HOST

    def is_shape_inference_io(self, name: str) -> bool:
        """False: shapes follow from shapes."""
        self._port(name)
        return False

    def get_tensor_format(self, name: str, profile_index: int = 0) -> TensorFormat:
        """LINEAR: dense and row-major."""
        self._port(name)
        self._check_profile(profile_index)
        return TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        """The same in words."""
        self.get_tensor_format(name, profile_index)
        return "Row-major linear format (kLINEAR)"

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        """Bytes of an element."""
        self._check_profile(profile_index)
        return int(self.get_tensor_dtype(name).itemsize)

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        """Always 1: nothing is vectorized."""
        self.get_tensor_format(name, profile_index)
        return 1

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        """-1: no dimension is."""
        self.get_tensor_format(name, profile_index)
        return -1

    @property
    def num_optimization_profiles(self) -> int:
        """Ranges of shapes, each with a program of its own; 1 at least."""
        return len(self._described["profiles"])

    @property
    def num_layers(self) -> int:
        """Steps of one rank."""
        return len(self._described["steps"])

    @property
    def device_memory_size_v2(self) -> int:
        """Bytes of activations and workspace of a rank, for the typical shapes of the profile that takes most."""
        return max(int(profile["activation_bytes"]) for profile in self._described["profiles"])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        """Bytes of activations and workspace of a rank, for the typical shapes of one profile."""
        self._check_profile(profile_index)
        return int(self._described["profiles"][max(0, profile_index)]["activation_bytes"])

    @property
    def device_memory_size(self) -> int:
        """The same as device_memory_size_v2."""
        return self.device_memory_size_v2

    def _weights(self, name: str, budget: int | None = None) -> WeightMemory:
        if self._engine.device == "cpu":
            raise unsupported(f"ICudaEngine.{name}", "ranks on the CPU read weights where they lie")
        return self._engine.weight_memory(budget)

    @property
    def streamable_weights_size(self) -> int:
        """Bytes of a GPU that all weights of rank 0 take: with a budget of so many nothing is streamed. UnsupportedError on CPU ranks."""
        return self._weights("streamable_weights_size").bytes

    @property
    def weight_streaming_budget_v2(self) -> int:
        """Bytes of each rank's GPU that its weights may take, in contexts created from now on; at first all of them are resident.

        Less than the least budget, such as 0, means the least. Other than TensorRT's it holds the scratch memory too. UnsupportedError on
        CPU ranks.
        """
        return self.streamable_weights_size if self._budget is None else self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        weights = self._weights("weight_streaming_budget_v2")
        if budget < 0:
            raise InvalidArgumentError(f"a weight streaming budget of {budget} bytes is none; 0 streams as much as can be")
        self._budget = None if budget >= weights.bytes else max(budget, weights.least_budget)

    @property
    def weight_streaming_scratch_memory_size(self) -> int:
        """Bytes of the budget in which streamed weights arrive; each context beyond the first takes them again."""
        return self._weights("weight_streaming_scratch_memory_size", self._budget).ring_bytes

    def get_weight_streaming_automatic_budget(self) -> int:
        """A budget for what is free on rank 0's GPU at present, less activations. UnsupportedError on CPU ranks."""
        self._weights("get_weight_streaming_automatic_budget")
        return self._engine.automatic_weight_budget()

    @property
    def refittable(self) -> bool:
        """Whether `tandem refit` can replace its weights."""
        return bool(self._described["refittable"])

    @property
    def num_aux_streams(self) -> int:
        """Streams besides the one given that a run uses, at most: for exchanges beside attention over ranks on GPUs; else 0."""
        return int(self._described["auxiliary_streams"])

    @property
    def engine_capability(self) -> EngineCapability:
        """Always STANDARD."""
        return EngineCapability.STANDARD

    @property
    def hardware_compatibility_level(self) -> HardwareCompatibilityLevel:
        """Always NONE: kernels are the program's."""
        return HardwareCompatibilityLevel.NONE

    @property
    def profiling_verbosity(self) -> ProfilingVerbosity:
        """DETAILED: an engine holds all that its inspector tells."""
        return ProfilingVerbosity.DETAILED

    def serialize(self) -> IHostMemory:
        """The bytes of the engine."""
        with told(self._logger):
            return self._engine.to_bytes(weights=self._engine.has_weights)

    def create_engine_inspector(self) -> EngineInspector:
        """What tells of layers."""
        return EngineInspector(self._described)

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext:
        """One rank's memory and state. STATIC is all there is: memory grows with the shapes and is the context's own."""
        with told(self._logger):
            if strategy == ExecutionContextAllocationStrategy.USER_MANAGED:
                raise unsupported("ExecutionContextAllocationStrategy.USER_MANAGED", "ranks on the CPU allocate host memory themselves")
            if not self._engine.has_weights:
                raise InvalidArgumentError(
                    "the engine was built with STRIP_PLAN and has no weights: write it to a file and run `tandem refit`"
                )
            return IExecutionContext(self)
