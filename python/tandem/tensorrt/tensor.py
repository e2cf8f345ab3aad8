"""ITensor and ILayer: what networks are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError
from .closed import Closed, unsupported
from .dtypes import DataType, Dims, from_word
from .enums import LayerType, TensorFormat, TensorLocation

if TYPE_CHECKING:
    from .lowering import Program, Value
    from .network import INetworkDefinition

__all__ = ["ILayer", "ITensor"]


class ITensor(Closed):
    """A value of a network: an input, or what a layer gives. Its dtype and shape follow from the layers as they are now."""

    _missing = {
        "dynamic_range": "there is no calibration; import a model with Q and DQ nodes",
        "set_dynamic_range": "there is no calibration; import a model with Q and DQ nodes",
        "allowed_formats": "elements always lie dense and row-major",
    }

    def __init__(
        self, network: INetworkDefinition, name: str, layer: ILayer | None = None, declared: tuple[DataType, Dims] | None = None
    ) -> None:
        self._network = network
        self._name = name
        self._layer = layer
        self._declared = declared  # of inputs
        self._symbols: dict[int, str] = {}

    @property
    def name(self) -> str:
        """The name under which an engine knows an input or output."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._refuse_parsed()
        if not name or self._network._is_taken(name, self):
            raise InvalidArgumentError(f"a tensor cannot be called '{name}': {'the name is taken' if name else 'it needs a name'}")
        self._name = name
        self._network._changed(None)

    @property
    def shape(self) -> Dims:
        """Extents of what one rank holds, in elements; -1 for one that is chosen at run time. Can be set for inputs."""
        return self._network._shape(self)

    @shape.setter
    def shape(self, shape: Sequence[int]) -> None:
        self._refuse_parsed()
        if self._declared is None:
            raise InvalidArgumentError(f"the shape of '{self._name}' follows from its layer")
        self._declared = (self._declared[0], Dims(shape))
        self._network._changed(None)

    @property
    def dtype(self) -> DataType:
        """The type of its elements."""
        return from_word(self._network._value(self).dtype)

    @dtype.setter
    def dtype(self, dtype: DataType) -> None:
        self._refuse_parsed()
        if self._declared is None:
            raise unsupported(f"setting the dtype of '{self._name}'", "networks are strongly typed: add a cast layer")
        self._declared = (DataType(dtype), self._declared[1])
        self._network._changed(None)

    @property
    def is_network_input(self) -> bool:
        """Whether add_input or the parser made it."""
        return self in self._network._inputs

    @property
    def is_network_output(self) -> bool:
        """Whether it is marked as output."""
        return self in self._network._outputs

    @property
    def is_shape_tensor(self) -> bool:
        """False: shapes follow from shapes."""
        return False

    @property
    def is_execution_tensor(self) -> bool:
        """True of every tensor."""
        return True

    @property
    def location(self) -> TensorLocation:
        """HOST: ranks on the CPU."""
        return TensorLocation.HOST

    @property
    def allowed_formats(self) -> int:
        """Only LINEAR: dense and row-major."""
        return 1 << int(TensorFormat.LINEAR)

    @allowed_formats.setter
    def allowed_formats(self, formats: int) -> None:
        if not formats & 1 << int(TensorFormat.LINEAR):
            raise unsupported(f"formats of '{self._name}' without LINEAR", "elements always lie dense and row-major")

    def set_dimension_name(self, index: int, name: str) -> None:
        """Names a dimension of an input that is -1: those of one name are equal in every run."""
        self._refuse_parsed()
        self._symbols[index] = name
        self._network._changed(None)

    def get_dimension_name(self, index: int) -> str:
        """The name of a dimension of an input that is -1; empty if it has none."""
        return self._symbols.get(index, "")

    def _refuse_parsed(self) -> None:
        if self in self._network._parsed_inputs:
            raise unsupported(
                f"changing input '{self._name}' of a parsed model", "a profile fixes extents; other names and types are those of the file"
            )

    def __repr__(self) -> str:
        return f"ITensor({self._name!r})"

    def _extents(self) -> list[int | str]:
        """Of inputs: numbers, and a symbol for each -1."""
        assert self._declared is not None
        word = re.sub(r"\W", "_", self._name)
        return [self._symbols.get(i, f"{word}_{i}") if extent < 0 else extent for i, extent in enumerate(self._declared[1])]


class ILayer(Closed):
    """A layer of a network. Settings may be changed until a build; what is wrong is told then, or when a shape is asked for."""

    _missing = {
        "precision": "networks are strongly typed: add a cast layer",
        "set_output_type": "networks are strongly typed: add a cast layer",
        "reset_precision": "networks are strongly typed",
    }
    _type: LayerType
    _word = ""

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], outputs: int = 1) -> None:
        self._network = network
        self._index = len(network._layers)
        self._name = f"(Unnamed Layer* {self._index}) [{self._word or type(self).__name__[1:].removesuffix('Layer')}]"
        self._inputs = list(inputs)
        self._metadata = ""
        self._outputs = [ITensor(network, f"{self._name}_output" + (f"_{i}" if i else ""), self) for i in range(outputs)]
        for tensor in inputs:
            network._own(tensor, self._name)

    @property
    def name(self) -> str:
        """The name that errors and inspectors use."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        for tensor in self._outputs:  # outputs that nobody named follow
            if tensor._name.startswith(f"{self._name}_output"):
                tensor._name = name + tensor._name[len(self._name) :]
        self._name = name
        self._changed()

    @property
    def metadata(self) -> str:
        """Words of the user about the layer; kept in the network, not in engines."""
        return self._metadata

    @metadata.setter
    def metadata(self, metadata: str) -> None:
        self._metadata = metadata

    @property
    def type(self) -> LayerType:
        """Which layer it is."""
        return self._type

    @property
    def num_inputs(self) -> int:
        """How many operands it has."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """How many results it has."""
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        """Operand `index`; None where there is none."""
        return self._inputs[index] if 0 <= index < len(self._inputs) else None  # type: ignore[return-value]

    def set_input(self, index: int, tensor: ITensor) -> None:
        """Replaces operand `index`; further ones can only be added where the layer says so."""
        if not 0 <= index < len(self._inputs):
            raise unsupported(f"input {index} of layer '{self._name}'", f"it has {len(self._inputs)} inputs")
        self._network._own(tensor, self._name)
        self._inputs[index] = tensor
        self._changed()

    def get_output(self, index: int) -> ITensor:
        """Result `index`; None where there is none, which its type does not say: TensorRT's does not either, and programs are written for
        that.
        """
        return self._outputs[index] if 0 <= index < len(self._outputs) else None  # type: ignore[return-value]

    @property
    def num_ranks(self) -> int:
        """How many ranks take part: 1. Only collectives and attention can have more."""
        return 1

    @num_ranks.setter
    def num_ranks(self, ranks: int) -> None:
        if ranks != 1:
            raise unsupported(
                f"num_ranks of layer '{self._name}'",
                "only collectives and attention run on several ranks; others run on each rank by itself",
            )

    def _changed(self) -> None:
        self._network._changed(self)

    def _operands(self) -> list[ITensor | None]:
        return self._inputs

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        """Adds what the layer means to a program."""
        raise NotImplementedError

    def _check_whole(self) -> None:
        """Refuses settings that a network in the making may have, but not one that is built."""


class ManyRanks(ILayer):
    """A layer that several ranks can share."""

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None]) -> None:
        super().__init__(network, inputs)
        self._num_ranks = 1

    @property
    def num_ranks(self) -> int:
        """How many ranks take part, from 1; 1 is one rank by itself. Once above 1 it cannot be changed."""
        return self._num_ranks

    @num_ranks.setter
    def num_ranks(self, ranks: int) -> None:
        if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
            raise InvalidArgumentError(f"num_ranks of layer '{self._name}' is {ranks!r}, expected a whole number from 1")
        if self._num_ranks > 1 and ranks != self._num_ranks:
            raise InvalidArgumentError(f"num_ranks of layer '{self._name}' is {self._num_ranks} and cannot be changed any more")
        self._num_ranks = ranks
        self._changed()
