"""The layers that hold, move and choose elements on one rank, and what each means in tandem's ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError
from .closed import unsupported
from .dtypes import Dims, Weights
from .enums import GatherMode, LayerType
from .layers import present
from .tensor import ILayer, ITensor

if TYPE_CHECKING:
    from .lowering import Program, Value
    from .network import INetworkDefinition

__all__ = [
    "IConcatenationLayer",
    "IConstantLayer",
    "IGatherLayer",
    "ISelectLayer",
    "IShuffleLayer",
    "ISliceLayer",
]

_gather = {GatherMode.DEFAULT: "Gather", GatherMode.ELEMENT: "GatherElements", GatherMode.ND: "GatherND"}


class IConstantLayer(ILayer):
    """Values that are part of the network; a refit reaches those of float types by the layer's name."""

    _type = LayerType.CONSTANT

    def __init__(self, network: INetworkDefinition, shape: Sequence[int], weights: object) -> None:
        super().__init__(network, [])
        self._weights = weights if isinstance(weights, Weights) else Weights(weights)
        if self._weights.size != Dims(shape).numel():
            raise InvalidArgumentError(f"layer '{self._name}': {self._weights.size} weights do not fill shape {Dims(shape)}")
        self._shape = Dims(shape)

    @property
    def weights(self) -> object:
        """The values, as a numpy array."""
        return self._weights.numpy()

    @property
    def shape(self) -> Dims:
        """Their extents."""
        return self._shape

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        array = self._weights.numpy().reshape(self._shape)
        if array.dtype.kind == "f" and array.size > 1:
            return [program.weight(self._name, array)]
        return [program.network.constant(array)]


class IShuffleLayer(ILayer):
    """A transposition, a reshape and another transposition, each only if it is set."""

    _type = LayerType.SHUFFLE

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None]) -> None:
        super().__init__(network, inputs)
        self._first: list[int] | None = None
        self._reshape: Dims | None = None
        self._second: list[int] | None = None
        self._zero_is_placeholder = True

    @property
    def first_transpose(self) -> Sequence[int] | None:
        """Dimension i of the result is dimension first_transpose[i] of the input; before the reshape."""
        return self._first

    @first_transpose.setter
    def first_transpose(self, permutation: Sequence[int]) -> None:
        self._first = list(permutation)
        self._changed()

    @property
    def reshape_dims(self) -> Dims | None:
        """The extents of the reshape: 0 copies an extent of the input (if zero_is_placeholder), one -1 is what the others leave."""
        return self._reshape

    @reshape_dims.setter
    def reshape_dims(self, shape: Sequence[int]) -> None:
        self._reshape = Dims(shape)
        self._changed()

    @property
    def second_transpose(self) -> Sequence[int] | None:
        """As first_transpose, after the reshape."""
        return self._second

    @second_transpose.setter
    def second_transpose(self, permutation: Sequence[int]) -> None:
        self._second = list(permutation)
        self._changed()

    @property
    def zero_is_placeholder(self) -> bool:
        """Whether 0 in reshape_dims copies an extent, else it is an extent of 0."""
        return self._zero_is_placeholder

    @zero_is_placeholder.setter
    def zero_is_placeholder(self, placeholder: bool) -> None:
        self._zero_is_placeholder = placeholder
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        x = present(inputs[0])
        if self._first is not None:
            x = program.add("Transpose", [x], self._name, permutation=self._first)
        if self._reshape is not None:
            copied = self._zero_is_placeholder
            extents = [x.shape[i] if extent == 0 and copied else extent for i, extent in enumerate(self._reshape)]
            x = program.add("Reshape", [x], self._name, shape=extents)
        if self._second is not None:
            x = program.add("Transpose", [x], self._name, permutation=self._second)
        return [x]


class IConcatenationLayer(ILayer):
    """Tensors joined along one dimension."""

    _type = LayerType.CONCATENATION

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None]) -> None:
        super().__init__(network, inputs)
        self._axis: int | None = None

    @property
    def axis(self) -> int:
        """The dimension that grows; unless it is set, the third from the end, or the first of fewer."""
        if self._axis is not None:
            return self._axis
        tensor = self._inputs[0]
        assert tensor is not None
        return max(0, len(tensor.shape) - 3)

    @axis.setter
    def axis(self, axis: int) -> None:
        self._axis = axis
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        axis = self._axis if self._axis is not None else max(0, len(present(inputs[0]).shape) - 3)
        return [program.add("Concat", inputs, self._name, axis=axis)]


class ISliceLayer(ILayer):
    """Every stride-th element of a block."""

    _type = LayerType.SLICE

    def __init__(
        self,
        network: INetworkDefinition,
        inputs: Sequence[ITensor | None],
        start: Sequence[int],
        shape: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__(network, inputs)
        self._start, self._shape, self._stride = Dims(start), Dims(shape), Dims(stride)
        if not len(self._start) == len(self._shape) == len(self._stride):
            raise InvalidArgumentError(
                f"layer '{self._name}': start, shape and stride have {len(self._start)}, {len(self._shape)} and {len(self._stride)} numbers"
            )
        if any(step < 1 for step in self._stride):
            raise unsupported(f"stride {self._stride} of layer '{self._name}'", "strides start at 1")

    @property
    def start(self) -> Dims:
        """The first index in every dimension."""
        return self._start

    @property
    def shape(self) -> Dims:
        """The extents of the result."""
        return self._shape

    @property
    def stride(self) -> Dims:
        """The distance of indices in every dimension."""
        return self._stride

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        ends = [b + (n - 1) * s + 1 if n > 0 else b for b, n, s in zip(self._start, self._shape, self._stride, strict=True)]
        axes = list(range(len(self._start)))
        return [
            program.add("Slice", [present(inputs[0])], self._name, starts=list(self._start), ends=ends, axes=axes, steps=list(self._stride))
        ]


class IGatherLayer(ILayer):
    """Parts of a tensor, chosen by indices."""

    _type = LayerType.GATHER

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], mode: GatherMode, axis: int) -> None:
        super().__init__(network, inputs)
        self._mode, self._axis, self._elementwise = GatherMode(mode), axis, 0

    @property
    def axis(self) -> int:
        """The dimension that is indexed, of DEFAULT and ELEMENT."""
        return self._axis

    @axis.setter
    def axis(self, axis: int) -> None:
        self._axis = axis
        self._changed()

    @property
    def mode(self) -> GatherMode:
        """How indices are read."""
        return self._mode

    @property
    def num_elementwise_dims(self) -> int:
        """Leading dimensions that data and indices share: 0 but for ND."""
        return self._elementwise

    @num_elementwise_dims.setter
    def num_elementwise_dims(self, dims: int) -> None:
        if dims and self._mode != GatherMode.ND:
            raise unsupported(f"num_elementwise_dims of layer '{self._name}'", "only GatherMode.ND has them here")
        self._elementwise = dims
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        which: dict[str, object] = {"batch_dims": self._elementwise} if self._mode == GatherMode.ND else {"axis": self._axis}
        return [program.add(_gather[self._mode], inputs, self._name, **which)]


class ISelectLayer(ILayer):
    """Elements of one tensor where a condition holds, else of another."""

    _type = LayerType.SELECT

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        return [program.add("Where", inputs, self._name)]
