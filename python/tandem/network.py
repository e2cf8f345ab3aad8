"""Network: programs built in Python, from the same ops that model files become.

net = tandem.Network()
x = net.input("x", "f32", ["B", 64])
net.output("y", net.gelu(x @ net.weight("up", up)) @ net.weight("down", down))
engine = net.build(mesh={"tp": 2})
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from . import _core
from ._core import Value
from .errors import InvalidArgumentError
from .mesh import Mesh
from .ops import NetworkOps
from .words import Dim, DTypeLike, Operand, dtype_word

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._core import Engine

__all__ = ["Network", "Value"]


class Network(NetworkOps):
    """A program in the making; every op is a method. What is added is checked at once, and an error changes nothing of what is there.

    Two kinds. Without a mesh and without collectives it is the program as one device would run it, and build() shards it as it shards a
    model file. With a mesh, or with collectives, it is the program of *one rank*, the same on all, and build() takes it as it is: inputs
    and outputs are then each rank's own (lists with an array per rank) unless placed "same", or "DIM:AXIS[,DIM:AXIS...]", in blocks of
    ceil(extent / ranks) that the caller scatters and gathers whole.

    Operands may be values of this network, arrays, and beside a value also numbers, which take its dtype.
    """

    def __init__(self, mesh: Mesh | Mapping[str, int] | str | None = None) -> None:
        """An empty network; `mesh` are the ranks whose program it is, such as {"tp": 2}."""
        super().__init__("" if mesh is None else mesh if isinstance(mesh, str) else str(Mesh(mesh)))

    @classmethod
    def from_onnx(
        cls, model: str | os.PathLike[str] | Buffer, *, ranks: int = 1, refittable: bool = False, folder: str | os.PathLike[str] = ""
    ) -> Network:
        """A network that begins with the program of an ONNX model, its outputs included, to be built as it is or added to.

        Args:
            model: a file, or the bytes of one.
            ranks: that will run a file which another tool has sharded without saying for how many.
            refittable: compute nothing with the contents of weights, so that a refit reaches all of them.
            folder: where external data of a model in memory lies.

        Raises:
            InvalidModelError, UnsupportedError: the message names the node and the reason.
            IoError: of a file that cannot be read.
        """
        network = cls.__new__(cls)
        source = os.fspath(model) if isinstance(model, (str, os.PathLike)) else model
        _core._Network.__init__(network, source, ranks, refittable, os.fspath(folder))
        return network

    @property
    def mesh(self) -> Mesh:
        """The ranks whose program this is; one rank if it was made for no mesh."""
        return Mesh.parse(self._mesh)

    def symbol(self, name: str, min: int, opt: int, max: int) -> str:  # noqa: A002 - the words of profiles
        """Gives a dynamic extent its range, and returns its name.

        Symbols without one get 1 to 65536, typically 8, less where the program says so. Raises InvalidArgumentError unless
        0 <= min <= opt <= max.
        """
        self._symbol(name, min, opt, max)
        return name

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[Dim], *, placement: str = "") -> Value:
        """An input of the engine.

        Args:
            name: as callers give it.
            dtype: "f32", "i64", ...; numpy's types and names are taken too.
            shape: extents in elements as the caller sees them: numbers, symbols such as "B", expressions such as "past + 1".
            placement: of one rank's program: "" for each rank's own, "same", or "DIM:AXIS[,DIM:AXIS...]".

        Raises:
            InvalidArgumentError: of a name that is taken, a shape or placement that is none.
        """
        return self._input(name, dtype_word(dtype), shape, placement)

    def weight(self, name: str, data: Any, *, placement: str = "", copy: bool = False) -> Value:
        """A weight under the name by which a refit finds it.

        A contiguous array is not copied, and must not change while the network or an engine made from it lives; any other is packed.

        Args:
            name: unique in the network.
            data: numpy, torch, or whatever has DLPack or the buffer protocol, on the host.
            placement: "DIM:AXIS[,DIM:AXIS...]" gives each rank of the network's mesh its block of it.
            copy: takes a copy, so that the array may change.
        """
        return self._weight(name, data, placement, copy)

    def constant(self, value: Any, *, dtype: DTypeLike | None = None, copy: bool = False) -> Value:
        """Values that no refit reaches: an array, or a number or list of the dtype given.

        Arrays of up to 1024 elements are copied; larger ones as weight() does.
        """
        if dtype is None and isinstance(value, (bool, int, float, list, tuple)):
            raise InvalidArgumentError("a constant that is no array needs a dtype: constant(1.0, dtype='f32')")
        if dtype is None:
            return self._constant(value, copy)
        if isinstance(value, (bool, int, float)):
            return self._scalar(dtype_word(dtype), float(value))
        import numpy

        return self.cast(self._constant(numpy.asarray(value), copy), dtype)

    def attention(
        self,
        q: Operand,
        k: Operand,
        v: Operand,
        mask: Operand | None = None,
        query_lengths: Operand | None = None,
        key_lengths: Operand | None = None,
        past: Operand | None = None,
        *,
        scale: float | None = None,
        causal: Literal["none", "upper_left", "lower_right", "offset"] = "none",
        softcap: float = 0.0,
        empty_rows: Literal["zero", "nan"] = "zero",
        axis: str = "",
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        split: Literal["qkv", "kv"] = "qkv",
        layout: Literal["contiguous", "zigzag"] = "contiguous",
        algorithm: Literal["auto", "all_gather", "all_to_all", "ring", "balanced"] = "auto",
        extent: Dim = 0,
        kv_extent: Dim = 0,
        name: str = "",
    ) -> Value:
        """softmax(scale * q @ k.T, capped and masked) @ v per head, for q [B,Hq,Sq,D], k [B,Hkv,Skv,D], v [B,Hkv,Skv,Dv]; Hq a multiple of
        Hkv.

        With an axis, groups or num_ranks the ranks hold parts of the sequence and exchange what they need.

        Args:
            mask: bool (True: attend) or added to the scores; broadcasts to [B,Hq,Sq,Skv].
            query_lengths: i32 or i64 [B]: rows from there on are zeros.
            key_lengths: i32 or i64 [B]: columns from there on are not attended to.
            past: i32 or i64 scalar, for causal="offset": keys before the first query.
            scale: factor of q @ k.T; None: 1/sqrt(D).
            causal: j <= i, j <= i + Skv - Sq, j <= i + past.
            softcap: c: scores become c * tanh(score / c) before the mask; 0: they stay.
            empty_rows: the result of a row that may attend to nothing.
            axis: mesh axis over which the sequence is split.
            groups: explicit groups of ranks instead of an axis.
            num_ranks: ranks in a group; None: as axis or groups say, else 1.
            split: what the ranks hold parts of.
            layout: which positions a rank holds.
            algorithm: how the ranks exchange.
            extent: length of the whole query sequence if split; 0: as many as there are.
            kv_extent: length of the whole key sequence if split; 0: as many as there are.
        """
        if scale is None:
            size = q.shape[-1] if isinstance(q, Value) and q.ndim else None
            if not isinstance(size, int):
                raise InvalidArgumentError("[Attention] the head size is not known, so a scale must be given")
            scale = 1 / math.sqrt(size)
        attributes = {
            "scale": scale, "causal": causal, "softcap": softcap, "empty_rows": empty_rows, "axis": axis, "groups": groups,
            "num_ranks": num_ranks, "split": split, "layout": layout, "algorithm": algorithm, "extent": extent, "kv_extent": kv_extent,
        }  # fmt: skip
        return self._add("Attention", [q, k, v, mask, query_lengths, key_lengths, past], attributes, name)

    def dist_collective(
        self,
        x: Operand,
        operation: str,
        *,
        reduce: str | None = None,
        root: int | None = None,
        dim: int | None = None,
        axis: str = "",
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        name: str = "",
    ) -> Value:
        """A collective by NCCL's word: all_reduce, all_gather, broadcast, reduce, reduce_scatter, all_to_all, gather, scatter.

        Raises InvalidArgumentError where the operation has no use for what is given.
        """
        ops = {
            "all_reduce": "AllReduce", "all_gather": "AllGather", "broadcast": "Broadcast", "reduce": "ReduceTo",
            "reduce_scatter": "ReduceScatter", "all_to_all": "AllToAll", "gather": "GatherTo", "scatter": "Scatter",
        }  # fmt: skip
        if operation not in ops:
            raise InvalidArgumentError(f"there is no collective '{operation}'; there are {', '.join(ops)}")
        attributes: dict[str, Any] = {"axis": axis, "groups": groups, "num_ranks": num_ranks, "reduce": reduce, "root": root}
        attributes |= {"split_dim": dim, "concat_dim": dim} if operation == "all_to_all" else {"dim": dim}
        return self._add(ops[operation], [x], attributes, name)

    def output(self, name: str, value: Value, *, placement: str = "") -> None:
        """Makes a value an output of the engine; `placement` as for inputs: a block's extent times the ranks is what the caller sees."""
        self._output(name, value, placement)

    def remove_output(self, name: str) -> None:
        """Makes an output none; its value stays. Raises InvalidArgumentError if there is none of this name."""
        self._remove_output(name)

    def set_attribute(self, value: Value, name: str, to: Any) -> None:
        """Changes an attribute of the op that gives `value`; what follows from it gets its new shapes, or nothing changes."""
        self._set_attribute(value, name, to)

    def attribute(self, value: Value, name: str) -> Any:
        """An attribute of the op that gives `value`."""
        return self._attribute(value, name)

    @property
    def inputs(self) -> list[Value]:
        """The inputs, in order."""
        return self._inputs()

    @property
    def outputs(self) -> dict[str, Value]:
        """The outputs by name, in order."""
        return self._outputs()

    def describe(self) -> dict[str, Any]:
        """All about it: mesh, inputs and outputs, values with extents and how they lie over the mesh, nodes with what they take, give and
        are told.

        Extents are those of one rank. What a node gives has no sharding before the network is built: see Engine.describe.
        """
        described: dict[str, Any] = json.loads(self._describe())
        return described

    def to_graphviz(self) -> str:
        """The program in the DOT language, for `dot -Tsvg`: nodes in boxes by layer, exchanges in the colour of their mesh axis, edges with
        types.
        """
        from .looking import network_graphviz

        return network_graphviz(self.describe())

    def _repr_html_(self) -> str:
        """Tables for notebooks: inputs and outputs with their placement, nodes with what they take, make, are told. Safe for any names."""
        from .looking import network_html

        return network_html(self.describe())

    def build(self, *, mesh: Mesh | Mapping[str, int] | str | None = None, **options: Any) -> Engine:
        """Compiles it into an Engine; the arguments are those of tandem.build. The network stays as it is."""
        from .building import build

        return build(self, mesh=mesh, **options)

    def __str__(self) -> str:
        """The program as text; weights of more than 64 elements without their data."""
        return self._to_text()

    def __repr__(self) -> str:
        shown = ", ".join(f"{v.name}: {v.dtype}[{','.join(map(str, v.shape))}]" for v in self.inputs)
        return f"Network({shown} -> {', '.join(self.outputs) or 'no outputs yet'})"


def list_ops() -> list[_core.OpInfo]:
    """Every op that a network can hold: name, documentation, operands, attributes with kinds and defaults."""
    return _core.list_ops()
