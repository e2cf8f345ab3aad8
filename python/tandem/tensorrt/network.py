"""INetworkDefinition: a network in the making."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError
from .adding import LayerMethods
from .closed import unsupported
from .dtypes import DataType, Dims, from_word, to_word
from .enums import NetworkDefinitionCreationFlag
from .logger import ILogger, told
from .lowering import Program
from .tensor import ILayer, ITensor

if TYPE_CHECKING:
    from ..network import Network
    from .builder import Builder
    from .lowering import Value

__all__ = ["INetworkDefinition"]


class INetworkDefinition(LayerMethods):
    """Inputs, layers and outputs, as one rank runs them; Builder.create_network makes one. Strongly typed, explicit batch.

    Layers may change until a build. What is wrong with one is told when a shape that follows from it is asked for, at the latest by the
    build.
    """

    def __init__(self, builder: Builder, logger: ILogger) -> None:
        self._builder = builder
        self._logger = logger
        self._network_name = "Unnamed Network 0"
        self._inputs: list[ITensor] = []
        self._layers: list[ILayer] = []
        self._outputs: list[ITensor] = []
        self._program: Program | None = None
        self._begin: Callable[[int], Network] | None = None  # a parsed model, for so many ranks
        self._parsed_inputs: set[ITensor] = set()
        self._parsed: dict[ITensor, str] = {}  # its results

    @property
    def name(self) -> str:
        """A name of the network; engines have it too."""
        return self._network_name

    @name.setter
    def name(self, name: str) -> None:
        self._network_name = name

    @property
    def builder(self) -> Builder:
        """What made it."""
        return self._builder

    @property
    def flags(self) -> int:
        """The flags of networks here, as bits."""
        return sum(1 << int(flag) for flag in NetworkDefinitionCreationFlag)

    def get_flag(self, flag: NetworkDefinitionCreationFlag) -> bool:
        """True of EXPLICIT_BATCH and STRONGLY_TYPED."""
        return bool(self.flags >> int(flag) & 1)

    def add_input(self, name: str, dtype: DataType, shape: Sequence[int]) -> ITensor:
        """An input: of what one rank gets, extents in elements, -1 for those that each run may choose (a profile gives their range)."""
        if not name or self._is_taken(name, None):
            raise InvalidArgumentError(f"an input cannot be called '{name}': {'the name is taken' if name else 'it needs a name'}")
        to_word(DataType(dtype))
        if any(extent < -1 for extent in shape):
            raise InvalidArgumentError(
                f"input '{name}' has shape {tuple(shape)}; an extent is at least 0, or -1 if it is chosen at run time"
            )
        self._inputs.append(ITensor(self, name, declared=(DataType(dtype), Dims(shape))))
        self._changed(None)
        return self._inputs[-1]

    def mark_output(self, tensor: ITensor) -> None:
        """Makes a tensor an output of the engine, under its name."""
        self._own(tensor, "mark_output")
        if tensor in self._outputs:
            raise InvalidArgumentError(f"'{tensor.name}' is marked as output already")
        self._outputs.append(tensor)

    def unmark_output(self, tensor: ITensor) -> None:
        """Undoes mark_output."""
        if tensor not in self._outputs:
            raise InvalidArgumentError(f"'{tensor.name}' is not marked as output")
        self._outputs.remove(tensor)

    def mark_debug(self, tensor: ITensor) -> bool:
        """Refused: what is between layers may be fused away."""
        raise unsupported("mark_debug", "mark the tensor as an output")

    @property
    def num_inputs(self) -> int:
        """How many inputs there are."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """How many outputs are marked."""
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        """How many layers were added by name; those of a parsed model are not listed."""
        return len(self._layers)

    def get_input(self, index: int) -> ITensor:
        """Input `index`; None where there is none, which its type does not say, as TensorRT's does not."""
        return self._inputs[index] if 0 <= index < len(self._inputs) else None  # type: ignore[return-value]

    def get_output(self, index: int) -> ITensor:
        """Output `index`; None where there is none."""
        return self._outputs[index] if 0 <= index < len(self._outputs) else None  # type: ignore[return-value]

    def get_layer(self, index: int) -> ILayer:
        """Layer `index`, as they were added."""
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> ILayer:
        return self._layers[index]

    def __iter__(self) -> Iterator[ILayer]:
        return iter(self._layers)

    def to_text(self) -> str:
        """Ours, not TensorRT's: the program in the words of docs/graph_text.md."""
        return str(self._whole().network)

    # What the parts of a network ask of it

    def _begin_with(self, begin: Callable[[int], Network]) -> None:
        """A parsed model comes first: its inputs, and its results as outputs."""
        network = begin(1)
        declared = [(value.name, from_word(value.dtype), value.shape) for value in network.inputs]
        for name, dtype, shape in declared:
            self._inputs.append(ITensor(self, name, declared=(dtype, Dims(e if isinstance(e, int) else -1 for e in shape))))
            self._inputs[-1]._symbols = {i: str(e) for i, e in enumerate(shape) if not isinstance(e, int)}
        self._parsed_inputs.update(self._inputs)
        for name in network.outputs:
            tensor = ITensor(self, name)
            self._parsed[tensor] = name
            self._outputs.append(tensor)
        self._begin = begin

    def _append(self, layer: ILayer) -> None:
        self._layers.append(layer)

    def _own(self, tensor: ITensor | None, where: str) -> None:
        if tensor is not None and (not isinstance(tensor, ITensor) or tensor._network is not self):
            what = (
                f"'{tensor.name}' belongs to another network" if isinstance(tensor, ITensor) else f"{type(tensor).__name__} is no ITensor"
            )
            raise InvalidArgumentError(f"{where}: {what}")

    def _is_taken(self, name: str, but: ITensor | None) -> bool:
        tensors = [*self._inputs, *self._parsed, *(t for layer in self._layers for t in layer._outputs)]
        return any(tensor._name == name and tensor is not but for tensor in tensors)

    def _changed(self, layer: ILayer | None) -> None:
        """A layer, or an input, is not what it was."""
        if self._program and (layer is None or layer in self._program.lowered):
            self._program = None

    def _value(self, tensor: ITensor) -> Value:
        if self._program is None:
            self._program = Program(self)
        with told(self._logger):
            try:
                return self._program.value(tensor)
            except BaseException:
                self._program = None
                raise

    def _shape(self, tensor: ITensor) -> Dims:
        return Dims(extent if isinstance(extent, int) else -1 for extent in self._value(tensor).shape)

    def _whole(self, ranks: int = 1) -> Program:
        """The program with its outputs, which nobody changes any more; `ranks` are for models that do not say it."""
        if not self._outputs:
            raise InvalidArgumentError("the network has no outputs: mark_output() some")
        program = Program(self, ranks)
        for tensor in self._outputs:
            program.network.output(tensor.name, program.value(tensor))
        for layer in self._layers:
            if layer in program.lowered:
                layer._check_whole()
        return program
