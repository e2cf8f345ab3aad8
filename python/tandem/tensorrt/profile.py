"""IOptimizationProfile: the range of shapes that an engine is for."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidArgumentError
from .closed import Closed, unsupported
from .dtypes import Dims

__all__ = ["IOptimizationProfile"]


class IOptimizationProfile(Closed):
    """Per input its smallest, typical and largest shape. IBuilderConfig.add_optimization_profile takes one or several."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[Dims, Dims, Dims]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        """The range of an input by name: three shapes of one rank, min <= opt <= max in every extent, in elements."""
        shapes = (Dims(min), Dims(opt), Dims(max))
        if len({len(shape) for shape in shapes}) != 1:
            raise InvalidArgumentError(
                f"profile of '{input}': min, opt and max have {', '.join(str(len(s)) for s in shapes)} dimensions, expected the same number"
            )
        for d, (low, typical, high) in enumerate(zip(*shapes, strict=True)):
            if not 0 <= low <= typical <= high:
                raise InvalidArgumentError(
                    f"profile of '{input}': dimension {d} has {low}, {typical}, {high}, expected 0 <= min <= opt <= max"
                )
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Dims]:
        """[min, opt, max] of an input; empty if none were set."""
        return list(self._shapes.get(input, ()))

    def set_shape_input(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        """Refused: contents of an input never decide a shape here."""
        raise unsupported(f"set_shape_input of '{input}'", "shapes follow from shapes of inputs, never from their contents")

    @property
    def extra_memory_target(self) -> float:
        """Always 1.0: there is no such target."""
        return 1.0

    def __bool__(self) -> bool:
        return bool(self._shapes)

    def _texts(self) -> dict[str, str]:
        return {name: ":".join("x".join(map(str, shape)) for shape in shapes) for name, shapes in self._shapes.items()}
