"""The layers that several ranks share: collectives and attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from ..errors import InvalidArgumentError
from .closed import unsupported
from .enums import AttentionIOForm, AttentionNormalizationOp, CausalMaskKind, CollectiveOperation, LayerType, ReduceOperation
from .layers import REDUCTIONS, present
from .tensor import ITensor, ManyRanks

if TYPE_CHECKING:
    from .lowering import Program, Value
    from .network import INetworkDefinition

__all__ = ["IAttention", "IDistCollectiveLayer"]

_reducing = {CollectiveOperation.ALL_REDUCE, CollectiveOperation.REDUCE, CollectiveOperation.REDUCE_SCATTER}
_rooted = {CollectiveOperation.BROADCAST, CollectiveOperation.REDUCE, CollectiveOperation.GATHER, CollectiveOperation.SCATTER}
_causal_words: dict[CausalMaskKind, Literal["none", "upper_left", "lower_right"]] = {
    CausalMaskKind.NONE: "none",
    CausalMaskKind.UPPER_LEFT: "upper_left",
    CausalMaskKind.LOWER_RIGHT: "lower_right",
}
Groups = Sequence[int] | Sequence[Sequence[int]]


def _lists(groups: Groups | None) -> list[list[int]]:
    """A flat list is one group."""
    lists: list[list[int]] = []
    flat: list[int] = []
    for item in groups if groups is not None else ():
        if isinstance(item, Iterable):
            lists.append([int(rank) for rank in item])
        else:
            flat.append(int(item))
    if flat and lists:
        raise InvalidArgumentError("groups mixes ranks and lists of ranks")
    return [flat] if flat else lists


class IDistCollectiveLayer(ManyRanks):
    """What the ranks of a group do together, along dimension 0. Set num_ranks to the ranks of a group; 1 is the identity."""

    _type = LayerType.DIST_COLLECTIVE

    def __init__(
        self,
        network: INetworkDefinition,
        input: ITensor,
        operation: CollectiveOperation,
        reduce_op: ReduceOperation,
        root: int,
        groups: Groups | None,
    ) -> None:
        super().__init__(network, [input])
        self._operation, self._reduce = CollectiveOperation(operation), ReduceOperation(reduce_op)
        self._root, self._groups = root, _lists(groups)
        name = self._operation.name
        if self._operation in _reducing and self._reduce == ReduceOperation.NONE:
            raise InvalidArgumentError(f"layer '{self._name}': {name} reduces, but reduce_op is NONE")
        if self._operation not in _reducing and self._reduce != ReduceOperation.NONE:
            raise InvalidArgumentError(f"layer '{self._name}': {name} reduces nothing, but reduce_op is {self._reduce.name}; expected NONE")
        if self._operation in _rooted and root < 0:
            raise InvalidArgumentError(f"layer '{self._name}': {name} has a root, but root is {root}; expected a rank from 0")
        if self._operation in _rooted and self._groups and not all(root in group for group in self._groups) and len(self._groups) == 1:
            raise InvalidArgumentError(f"layer '{self._name}': root {root} is not in group {self._groups[0]}")
        if self._operation in _rooted and len(self._groups) > 1:
            raise unsupported(
                f"{name} of layer '{self._name}' over {len(self._groups)} groups", "root is one rank, and only one group has it"
            )

    @property
    def groups(self) -> list[list[int]]:
        """Ours, not TensorRT's: the groups of ranks; empty for all ranks."""
        return [list(group) for group in self._groups]

    def _check_whole(self) -> None:
        sizes = {len(group) for group in self._groups}
        if self._groups and sizes != {self._num_ranks}:
            raise InvalidArgumentError(
                f"layer '{self._name}': num_ranks is {self._num_ranks}, but its groups have "
                f"{' and '.join(map(str, sorted(sizes)))} ranks; set num_ranks to that number"
            )
        if self._operation in _rooted and not self._groups and self._root >= self._num_ranks:
            raise InvalidArgumentError(f"layer '{self._name}': root {self._root} is no rank of {self._num_ranks}")

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        if self._num_ranks == 1:  # or not said yet: shapes may be asked for before
            return [present(inputs[0])]
        self._check_whole()
        root = self._groups[0].index(self._root) if self._groups and self._operation in _rooted else self._root
        return [
            program.network.dist_collective(
                present(inputs[0]),
                self._operation.name.lower(),
                reduce=REDUCTIONS.get(self._reduce),
                root=root if self._operation in _rooted else None,
                groups=self._groups,
                num_ranks=self._num_ranks,
                name=self._name,
            )
        ]


class IAttention(ManyRanks):
    """Attention of q [B, Hq, Sq, D], k and v [B, Hkv, Skv, D]: softmax(mask(q·kᵀ))·v, without a factor: scale q or k before it.

    With num_ranks N above 1 each rank holds its part of the sequence in q, k and v and gets the same part of the result.
    """

    _type = LayerType.ATTENTION_OUTPUT
    _word = "Attention"
    _missing = {
        "normalization_quantize_scale": "scores stay in f32",
        "normalization_quantize_to_type": "scores stay in f32",
        "set_metadata": "set the property metadata",
    }

    def __init__(
        self,
        network: INetworkDefinition,
        query: ITensor,
        key: ITensor,
        value: ITensor,
        norm_op: AttentionNormalizationOp,
        causal: CausalMaskKind,
    ) -> None:
        super().__init__(network, [query, key, value])
        self.norm_op = norm_op
        self._causal = CausalMaskKind(causal)
        self._mask: ITensor | None = None
        self._lengths: ITensor | None = None
        self._decomposable = False

    @property
    def norm_op(self) -> AttentionNormalizationOp:
        """SOFTMAX; NONE is refused."""
        return AttentionNormalizationOp.SOFTMAX

    @norm_op.setter
    def norm_op(self, norm_op: AttentionNormalizationOp) -> None:
        if norm_op != AttentionNormalizationOp.SOFTMAX:
            raise unsupported(f"AttentionNormalizationOp.NONE of layer '{self._name}'", "two matrix multiply layers are that")

    @property
    def causal_mask_kind(self) -> CausalMaskKind:
        """Which keys a query may attend to by its position."""
        return self._causal

    @causal_mask_kind.setter
    def causal_mask_kind(self, kind: CausalMaskKind) -> None:
        self._causal = CausalMaskKind(kind)
        self._changed()

    @property
    def causal(self) -> bool:
        """TensorRT's older word: UPPER_LEFT, or NONE."""
        return self._causal != CausalMaskKind.NONE

    @causal.setter
    def causal(self, causal: bool) -> None:
        self.causal_mask_kind = CausalMaskKind.UPPER_LEFT if causal else CausalMaskKind.NONE

    @property
    def mask(self) -> ITensor | None:
        """What may be attended to (bool), or what is added to the scores; [B or 1, Hq or 1, Sq, Skv]. Not together with a causal kind."""
        return self._mask

    @mask.setter
    def mask(self, mask: ITensor) -> None:
        self._network._own(mask, self._name)
        self._mask = mask
        self._changed()

    @property
    def key_value_lengths(self) -> ITensor | None:
        """How many keys of each batch entry count, i32 or i64 [B]; None: all."""
        return self._lengths

    @key_value_lengths.setter
    def key_value_lengths(self, lengths: ITensor) -> None:
        self._network._own(lengths, self._name)
        self._lengths = lengths
        self._changed()

    @property
    def decomposable(self) -> bool:
        """Whether it may be taken apart. Either way it runs as one step here."""
        return self._decomposable

    @decomposable.setter
    def decomposable(self, decomposable: bool) -> None:
        self._decomposable = bool(decomposable)

    def _padded_only(self, form: AttentionIOForm) -> None:
        if form != AttentionIOForm.PADDED_BHND:
            raise unsupported(f"AttentionIOForm.PACKED_NHD of layer '{self._name}'", "pad the sequences and give key_value_lengths")

    @property
    def query_form(self) -> AttentionIOForm:
        """PADDED_BHND."""
        return AttentionIOForm.PADDED_BHND

    @query_form.setter
    def query_form(self, form: AttentionIOForm) -> None:
        self._padded_only(form)

    @property
    def key_value_form(self) -> AttentionIOForm:
        """PADDED_BHND."""
        return AttentionIOForm.PADDED_BHND

    @key_value_form.setter
    def key_value_form(self, form: AttentionIOForm) -> None:
        self._padded_only(form)

    def _operands(self) -> list[ITensor | None]:
        return [*self._inputs, self._mask, self._lengths]

    def _lower(self, program: Program, inputs: list[Value | None]) -> list[Value]:
        if self._mask and self._causal != CausalMaskKind.NONE:
            raise InvalidArgumentError(
                f"layer '{self._name}': a mask and CausalMaskKind.{self._causal.name} exclude each other, as in TensorRT: "
                "put both into the mask"
            )
        q, k, v = (present(x) for x in inputs[:3])
        causal = _causal_words[self._causal]
        return [
            program.network.attention(
                q, k, v, scale=1.0, causal=causal, mask=inputs[3], key_lengths=inputs[4], num_ranks=self._num_ranks, name=self._name
            )
        ]
