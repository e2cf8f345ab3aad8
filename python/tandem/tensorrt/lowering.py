"""From the layers of a network definition to a tandem.Network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError
from ..network import Network, Value
from .dtypes import to_word
from .ranks import IDistCollectiveLayer

if TYPE_CHECKING:
    from .network import INetworkDefinition
    from .tensor import ILayer, ITensor

__all__ = ["Program", "Value"]


class Program:
    """The tandem.Network of a network definition, made layer by layer as far as it is asked for."""

    def __init__(self, definition: INetworkDefinition, ranks: int = 1) -> None:
        self.network = definition._begin(ranks) if definition._begin else Network()
        self._definition = definition
        self._values: dict[ITensor, Value] = {}
        self.lowered: set[ILayer] = set()
        self._weights: set[str] = set()
        results = self.network.outputs
        for tensor, name in definition._parsed.items():  # of the model that it begins with
            self._values[tensor] = results[name]
        for name in results:
            self.network.remove_output(name)
        given = {value.name: value for value in self.network.inputs}
        for tensor in definition._inputs:
            if tensor in definition._parsed_inputs:
                self._values[tensor] = given[tensor._name]
                continue
            assert tensor._declared is not None
            self._values[tensor] = self.network.input(tensor._name, to_word(tensor._declared[0]), tensor._extents())

    def value(self, tensor: ITensor) -> Value:
        """What a tensor of the definition is in the program; adds the layers that are missing, each after those that it needs."""
        stack = [tensor]
        begun: set[ILayer] = set()
        while stack:
            layer = stack[-1]._layer
            if stack[-1] in self._values or layer is None:
                stack.pop()
                continue
            operands = layer._operands()
            missing = [t for t in operands if t is not None and t not in self._values]
            if missing:
                if any(t._layer in begun for t in missing):
                    raise InvalidArgumentError(f"layer '{layer.name}' needs its own result")
                begun.add(layer)
                stack += missing
                continue
            given = [None if t is None else self._values[t] for t in operands]
            self._values.update(zip(layer._outputs, layer._lower(self, given), strict=True))
            self.lowered.add(layer)
            begun.discard(layer)
        return self._values[tensor]

    def least_ranks(self) -> int:
        """How many ranks there must be where only layers over some of them communicate; 0 where a layer over all ranks says it."""
        groups = [layer.groups for layer in self.lowered if isinstance(layer, IDistCollectiveLayer) and layer.num_ranks > 1]
        whole = any(layer.num_ranks > 1 and not getattr(layer, "groups", None) for layer in self.lowered)
        return 0 if whole or not groups else 1 + max(rank for lists in groups for group in lists for rank in group)

    def add(self, op: str, operands: Sequence[Value | None], name: str = "", **attributes: Any) -> Value:
        """The one result of an op of tandem's list."""
        return self.network._add(op, list(operands), attributes, name)

    def weight(self, name: str, array: Any) -> Value:
        """A weight under a name that no other has."""
        unique, i = name, 1
        while unique in self._weights:
            unique, i = f"{name}.{i}", i + 1
        self._weights.add(unique)
        return self.network.weight(unique, array)
