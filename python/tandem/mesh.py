"""Mesh: how the ranks of a model are arranged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .errors import InvalidArgumentError

__all__ = ["Mesh"]


class Mesh(Mapping[str, int]):
    """Named axes and their sizes, in order; the last axis varies fastest from rank to rank.

    `Mesh(cp=2, tp=2)`, `Mesh({"cp": 2, "tp": 2})` and `Mesh.parse("cp=2,tp=2")` are the same four ranks. A mapping from axis to size;
    immutable. Raises InvalidArgumentError for a size below 1 or a name that is none.
    """

    __slots__ = ("_axes",)

    def __init__(self, axes: Mapping[str, int] | None = None, /, **more: int) -> None:
        self._axes: dict[str, int] = {}
        for name, size in {**(axes or {}), **more}.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise InvalidArgumentError(f"{name!r} is no name of a mesh axis")
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InvalidArgumentError(f"mesh axis {name} has size {size!r}, expected a whole number from 1")
            self._axes[name] = size

    @staticmethod
    def parse(text: str) -> Mesh:
        """The mesh of a text like "cp=2,tp=2", as the command line takes it; the empty text is one rank."""
        axes: dict[str, int] = {}
        for part in filter(None, text.split(",")):
            name, _, size = part.partition("=")
            if not size.strip().isdecimal() or name in axes:
                raise InvalidArgumentError(f"'{text}' is no mesh, expected something like tp=2,cp=2")
            axes[name.strip()] = int(size)
        return Mesh(axes)

    @property
    def size(self) -> int:
        """The number of ranks: the product of the sizes."""
        product = 1
        for extent in self._axes.values():
            product *= extent
        return product

    def coordinate(self, rank: int, axis: str) -> int:
        """Where `rank` lies on `axis`, from 0."""
        stride = 1
        for name in reversed(self._axes):
            if name == axis:
                return rank // stride % self._axes[name]
            stride *= self._axes[name]
        raise InvalidArgumentError(f"the mesh {self} has no axis '{axis}'")

    def __getitem__(self, axis: str) -> int:
        return self._axes[axis]

    def __iter__(self) -> Iterator[str]:
        return iter(self._axes)

    def __len__(self) -> int:
        return len(self._axes)

    def __hash__(self) -> int:
        return hash(tuple(self._axes.items()))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mesh):
            return list(self._axes.items()) == list(other._axes.items())
        return Mapping.__eq__(self, other)

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self._axes.items())

    def __repr__(self) -> str:
        return f"Mesh({', '.join(f'{name}={size}' for name, size in self._axes.items())})"
