"""The layers that compute on one rank, and what each means in tandem's ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError
from .closed import unsupported
from .dtypes import DataType, Dims, to_word
from .enums import ActivationType, ElementWiseOperation, LayerType, MatrixOperation, ReduceOperation, UnaryOperation
from .tensor import ILayer, ITensor

if TYPE_CHECKING:
    from .lowering import Program, Value
    from .network import INetworkDefinition

__all__ = [
    "IActivationLayer",
    "ICastLayer",
    "IElementWiseLayer",
    "IIdentityLayer",
    "IMatrixMultiplyLayer",
    "INormalizationLayer",
    "IReduceLayer",
    "IRotaryEmbeddingLayer",
    "ISoftMaxLayer",
    "IUnaryLayer",
]

_elementwise = {
    ElementWiseOperation.SUM: "Add",
    ElementWiseOperation.PROD: "Mul",
    ElementWiseOperation.MAX: "Max",
    ElementWiseOperation.MIN: "Min",
    ElementWiseOperation.SUB: "Sub",
    ElementWiseOperation.DIV: "Div",
    ElementWiseOperation.POW: "Pow",
    ElementWiseOperation.AND: "And",
    ElementWiseOperation.OR: "Or",
    ElementWiseOperation.XOR: "Xor",
    ElementWiseOperation.EQUAL: "Equal",
    ElementWiseOperation.GREATER: "Greater",
    ElementWiseOperation.LESS: "Less",
}
_unary = {
    UnaryOperation.EXP: "Exp",
    UnaryOperation.LOG: "Log",
    UnaryOperation.SQRT: "Sqrt",
    UnaryOperation.RECIP: "Reciprocal",
    UnaryOperation.ABS: "Abs",
    UnaryOperation.NEG: "Neg",
    UnaryOperation.SIN: "Sin",
    UnaryOperation.COS: "Cos",
    UnaryOperation.CEIL: "Ceil",
    UnaryOperation.FLOOR: "Floor",
    UnaryOperation.ERF: "Erf",
    UnaryOperation.NOT: "Not",
    UnaryOperation.SIGN: "Sign",
    UnaryOperation.ROUND: "Round",
    UnaryOperation.ISINF: "IsInf",
    UnaryOperation.ISNAN: "IsNaN",
}
_activation = {
    ActivationType.RELU: "Relu",
    ActivationType.SIGMOID: "Sigmoid",
    ActivationType.TANH: "Tanh",
    ActivationType.LEAKY_RELU: "LeakyRelu",
    ActivationType.ELU: "Elu",
    ActivationType.SOFTPLUS: "Softplus",
    ActivationType.HARD_SIGMOID: "HardSigmoid",
    ActivationType.GELU_ERF: "Gelu",
    ActivationType.GELU_TANH: "Gelu",
    ActivationType.CLIP: "",
}
REDUCTIONS = {
    ReduceOperation.SUM: "sum",
    ReduceOperation.PROD: "prod",
    ReduceOperation.MAX: "max",
    ReduceOperation.MIN: "min",
    ReduceOperation.AVG: "avg",
}


def present(value: Value | None) -> Value:
    """An operand that a layer always has."""
    assert value is not None
    return value


def axes_of(bits: int) -> list[int]:
    """Dimensions as TensorRT's bits: bit d stands for dimension d."""
    return [d for d in range(Dims.MAX_DIMS) if bits >> d & 1]


class IIdentityLayer(ILayer):
    """The input itself."""

    _type = LayerType.IDENTITY

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        return [present(inputs[0])]


class ICastLayer(ILayer):
    """The input in another type."""

    _type = LayerType.CAST

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], to_type: DataType) -> None:
        super().__init__(network, inputs)
        self.to_type = to_type

    @property
    def to_type(self) -> DataType:
        """The type of the result."""
        return self._to

    @to_type.setter
    def to_type(self, to_type: DataType) -> None:
        to_word(DataType(to_type))
        self._to = DataType(to_type)
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        return [program.add("Cast", [present(inputs[0])], self._name, to=to_word(self._to))]


class IElementWiseLayer(ILayer):
    """A function of two tensors, element by element; extents of 1 are repeated."""

    _type = LayerType.ELEMENTWISE

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], op: ElementWiseOperation) -> None:
        super().__init__(network, inputs)
        self.op = op

    @property
    def op(self) -> ElementWiseOperation:
        """Which function."""
        return self._op

    @op.setter
    def op(self, op: ElementWiseOperation) -> None:
        self._op = ElementWiseOperation(op)
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        a, b = present(inputs[0]), present(inputs[1])
        if self._op != ElementWiseOperation.FLOOR_DIV:
            return [program.add(_elementwise[self._op], [a, b], self._name)]
        if a.dtype.startswith(("f", "bf")):
            return [program.add("Floor", [program.add("Div", [a, b], self._name)], self._name)]
        whole = program.add("Sub", [a, program.add("Mod", [a, b], self._name)], self._name)
        return [program.add("Div", [whole, b], self._name)]


class IUnaryLayer(ILayer):
    """A function of one tensor, element by element."""

    _type = LayerType.UNARY

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], op: UnaryOperation) -> None:
        super().__init__(network, inputs)
        self.op = op

    @property
    def op(self) -> UnaryOperation:
        """Which function."""
        return self._op

    @op.setter
    def op(self, op: UnaryOperation) -> None:
        if op not in _unary:
            raise unsupported(f"UnaryOperation.{UnaryOperation(op).name} of layer '{self._name}'", "tandem has no op for it")
        self._op = UnaryOperation(op)
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        return [program.add(_unary[self._op], [present(inputs[0])], self._name)]


class IActivationLayer(ILayer):
    """An activation function, element by element."""

    _type = LayerType.ACTIVATION

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], type: ActivationType) -> None:
        super().__init__(network, inputs)
        if type not in _activation:
            raise unsupported(f"ActivationType.{ActivationType(type).name} of layer '{self._name}'", "tandem has no op for it")
        self._function = ActivationType(type)
        self._alpha = self._beta = 0.0

    @property
    def alpha(self) -> float:
        """The first parameter of LEAKY_RELU, ELU, CLIP (smallest), HARD_SIGMOID (slope) and SOFTPLUS; 0 unless set."""
        return self._alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._alpha = alpha
        self._changed()

    @property
    def beta(self) -> float:
        """The second parameter: of CLIP the largest value, of HARD_SIGMOID the value at 0, of SOFTPLUS the factor inside; 0 unless set."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._beta = beta
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        x = present(inputs[0])
        kind = self._function
        if kind == ActivationType.CLIP:
            low, high = (program.network.constant(limit, dtype=x.dtype) for limit in (self._alpha, self._beta))
            return [program.add("Min", [program.add("Max", [x, low], self._name), high], self._name)]
        if kind == ActivationType.SOFTPLUS and (self._alpha, self._beta) != (1, 1):
            raise unsupported(f"SOFTPLUS of layer '{self._name}' with alpha {self._alpha} and beta {self._beta}", "both must be set to 1")
        attributes: dict[str, object] = {}
        if kind in (ActivationType.LEAKY_RELU, ActivationType.ELU, ActivationType.HARD_SIGMOID):
            attributes["alpha"] = float(self._alpha)
        if kind == ActivationType.HARD_SIGMOID:
            attributes["beta"] = float(self._beta)
        if kind == ActivationType.GELU_TANH:
            attributes["approximate"] = "tanh"
        return [program.add(_activation[kind], [x], self._name, **attributes)]


class IMatrixMultiplyLayer(ILayer):
    """A matrix product over the last two dimensions; leading ones are repeated where they are 1."""

    _type = LayerType.MATRIX_MULTIPLY

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], op0: MatrixOperation, op1: MatrixOperation) -> None:
        super().__init__(network, inputs)
        self._ops = [self._checked(op0), self._checked(op1)]

    def _checked(self, op: MatrixOperation) -> MatrixOperation:
        if op == MatrixOperation.VECTOR:
            raise unsupported(f"MatrixOperation.VECTOR of layer '{self._name}'", "give the operand two dimensions by a shuffle layer")
        return MatrixOperation(op)

    @property
    def op0(self) -> MatrixOperation:
        """NONE, or TRANSPOSE of the first operand's last two dimensions."""
        return self._ops[0]

    @op0.setter
    def op0(self, op: MatrixOperation) -> None:
        self._ops[0] = self._checked(op)
        self._changed()

    @property
    def op1(self) -> MatrixOperation:
        """The same of the second operand."""
        return self._ops[1]

    @op1.setter
    def op1(self, op: MatrixOperation) -> None:
        self._ops[1] = self._checked(op)
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        operands = []
        for x, op in zip(inputs, self._ops, strict=True):
            operand = present(x)
            if op == MatrixOperation.TRANSPOSE:
                rank = len(operand.shape)
                operand = program.add("Transpose", [operand], self._name, permutation=[*range(rank - 2), rank - 1, rank - 2])
            operands.append(operand)
        return [program.add("MatMul", operands, self._name)]


class ISoftMaxLayer(ILayer):
    """Softmax along one dimension."""

    _type = LayerType.SOFTMAX

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None]) -> None:
        super().__init__(network, inputs)
        self._axes: int | None = None

    @property
    def axes(self) -> int:
        """The dimension, as a bit; unless it is set, the third from the end, or the first of fewer."""
        if self._axes is not None:
            return self._axes
        tensor = self._inputs[0]
        assert tensor is not None
        return 1 << max(0, len(tensor.shape) - 3)

    @axes.setter
    def axes(self, axes: int) -> None:
        if len(axes_of(axes)) != 1:
            raise unsupported(f"axes {axes:#b} of layer '{self._name}'", "softmax runs along one dimension")
        self._axes = axes
        self._changed()

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        x = present(inputs[0])
        axes = self._axes if self._axes is not None else 1 << max(0, len(x.shape) - 3)
        return [program.add("Softmax", [x], self._name, axis=axes_of(axes)[0])]


class IReduceLayer(ILayer):
    """A reduction over dimensions of one rank's tensor."""

    _type = LayerType.REDUCE

    def __init__(
        self, network: INetworkDefinition, inputs: Sequence[ITensor | None], op: ReduceOperation, axes: int, keep_dims: bool
    ) -> None:
        super().__init__(network, inputs)
        if op == ReduceOperation.NONE:
            raise InvalidArgumentError(f"layer '{self._name}': ReduceOperation.NONE reduces nothing")
        self._op, self._axes, self._keep = ReduceOperation(op), axes, keep_dims

    @property
    def op(self) -> ReduceOperation:
        """How it reduces."""
        return self._op

    @property
    def axes(self) -> int:
        """The dimensions, as bits."""
        return self._axes

    @property
    def keep_dims(self) -> bool:
        """Whether they stay with extent 1."""
        return self._keep

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        kind = "mean" if self._op == ReduceOperation.AVG else REDUCTIONS[self._op]
        return [program.add("Reduce", [present(inputs[0])], self._name, kind=kind, axes=axes_of(self._axes), keepdims=self._keep)]


class INormalizationLayer(ILayer):
    """Layer normalization over the last dimensions, with scale and bias."""

    _type = LayerType.NORMALIZATION

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], axes: int) -> None:
        super().__init__(network, inputs)
        self._axes, self._epsilon = axes, 1e-5

    @property
    def epsilon(self) -> float:
        """Added to the variance."""
        return self._epsilon

    @epsilon.setter
    def epsilon(self, epsilon: float) -> None:
        self._epsilon = epsilon
        self._changed()

    @property
    def axes(self) -> int:
        """The dimensions that are normalized, as bits."""
        return self._axes

    @property
    def num_groups(self) -> int:
        """1: groups of channels are not supported."""
        return 1

    @num_groups.setter
    def num_groups(self, groups: int) -> None:
        if groups != 1:
            raise unsupported(f"num_groups of layer '{self._name}'", "tandem has no group normalization")

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        x, scale, bias = (present(value) for value in inputs)
        rank, axes = len(x.shape), axes_of(self._axes)
        if not axes or axes != list(range(axes[0], rank)):
            raise unsupported(
                f"axes {self._axes:#b} of layer '{self._name}'", f"the last dimensions of {rank} are normalized, without gaps"
            )
        if scale.shape != bias.shape or any(extent != 1 for extent in scale.shape[: axes[0]]):
            raise unsupported(
                f"scale {scale.shape} and bias {bias.shape} of layer '{self._name}'", "both have the normalized extents, and 1 elsewhere"
            )
        flat = [program.add("Reshape", [value], self._name, shape=list(value.shape[axes[0] :])) for value in (scale, bias)]
        return [program.add("LayerNorm", [x, *flat], self._name, axis=axes[0], epsilon=self._epsilon)]


class IRotaryEmbeddingLayer(ILayer):
    """Rotary position embedding of [B, heads, S, D], with cos and sin [B, S, D/2]."""

    _type = LayerType.ROTARY_EMBEDDING

    def __init__(self, network: INetworkDefinition, inputs: Sequence[ITensor | None], interleaved: bool, rotary_embedding_dim: int) -> None:
        super().__init__(network, inputs)
        self._interleaved, self._dim = interleaved, rotary_embedding_dim

    @property
    def interleaved(self) -> bool:
        """Whether pairs are neighbours, else halves."""
        return self._interleaved

    @property
    def rotary_embedding_dim(self) -> int:
        """How many elements of a head are rotated; 0: all."""
        return self._dim

    def set_input(self, index: int, tensor: ITensor) -> None:
        """Replaces input, cos or sin; position ids (input 3) are refused."""
        if index == 3:
            raise unsupported(f"position ids of layer '{self._name}'", "gather the rows of cos and sin by a gather layer")
        super().set_input(index, tensor)

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        return [program.add("RotaryEmbedding", inputs, self._name, interleaved=self._interleaved, rotary_dim=self._dim)]
