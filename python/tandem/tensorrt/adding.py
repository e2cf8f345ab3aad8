"""The add_… methods of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from . import layers, moving, ranks
from .closed import Closed
from .dtypes import DataType
from .enums import (
    ActivationType,
    AttentionNormalizationOp,
    CausalMaskKind,
    CollectiveOperation,
    ElementWiseOperation,
    GatherMode,
    MatrixOperation,
    ReduceOperation,
    UnaryOperation,
)
from .tensor import ILayer, ITensor

if TYPE_CHECKING:
    from .network import INetworkDefinition

__all__ = ["LayerMethods"]

Layer = TypeVar("Layer", bound=ILayer)
_elsewhere = "tandem.Network has all ops of docs/ops.md, and OnnxParser reads models that hold more"


class LayerMethods(Closed):
    """Adds layers. Each method returns its layer, whose result is layer.get_output(0)."""

    _missing = {
        **{
            f"add_{kind}": _elsewhere
            for kind in "padding pooling scale lrn resize topk loop if_conditional fill einsum one_hot non_zero".split()
        },
        **{
            f"add_{kind}": _elsewhere
            for kind in "scatter shape assertion squeeze unsqueeze cumulative grid_sample nms reverse_sequence".split()
        },
        **{
            f"add_{kind}": _elsewhere
            for kind in "quantize dequantize dynamic_quantize kv_cache_update moe ragged_softmax parametric_relu".split()
        },
        "add_convolution_nd": "tandem has no convolution yet",
        "add_deconvolution_nd": "tandem has no convolution yet",
        "add_pooling_nd": "tandem has no pooling yet",
        "add_plugin": "there are no plugins",
        "add_plugin_v2": "there are no plugins",
        "add_plugin_v3": "there are no plugins",
    }

    def _append(self, layer: ILayer) -> None:
        raise NotImplementedError

    def _self(self) -> INetworkDefinition:
        return self  # type: ignore[return-value]

    def _added(self, layer: Layer) -> Layer:
        self._append(layer)
        return layer

    def add_dist_collective(
        self,
        input: ITensor,
        dist_collective_op: CollectiveOperation,
        reduce_op: ReduceOperation = ReduceOperation.NONE,
        root: int = -1,
        groups: Sequence[int] | Sequence[Sequence[int]] | None = None,
    ) -> ranks.IDistCollectiveLayer:
        """A collective along dimension 0; then set `layer.num_ranks`.

        Args:
            input: what each rank gives.
            dist_collective_op: what is done; its result is that of the contract table in docs/coming-from-tensorrt.md.
            reduce_op: how, where it reduces; else NONE.
            root: the rank, counted over all ranks, of BROADCAST, REDUCE, GATHER, SCATTER; ignored elsewhere.
            groups: the ranks of the one group that takes part, in order, or a list of such lists; None: all ranks. Ranks in no group pass
                their input through where the shape stays; where it changes the build fails.

        Raises:
            InvalidArgumentError: a reduce_op, root or group that does not fit.
        """
        return self._added(ranks.IDistCollectiveLayer(self._self(), input, dist_collective_op, reduce_op, root, groups))

    def add_attention_v2(
        self, query: ITensor, key: ITensor, value: ITensor, norm_op: AttentionNormalizationOp, causal_kind: CausalMaskKind
    ) -> ranks.IAttention:
        """softmax(mask(q·kᵀ))·v for q [B, Hq, Sq, D], k and v [B, Hkv, Skv, D], Hq a multiple of Hkv; f32, f16, bf16; no factor."""
        return self._added(ranks.IAttention(self._self(), query, key, value, norm_op, causal_kind))

    def add_attention(
        self, query: ITensor, key: ITensor, value: ITensor, norm_op: AttentionNormalizationOp, causal: bool
    ) -> ranks.IAttention:
        """TensorRT's older form of add_attention_v2: causal=True is UPPER_LEFT."""
        return self.add_attention_v2(query, key, value, norm_op, CausalMaskKind.UPPER_LEFT if causal else CausalMaskKind.NONE)

    def add_constant(self, shape: Sequence[int], weights: object) -> moving.IConstantLayer:
        """Values that are part of the network: trt.Weights or an array of as many elements as `shape` has; not copied."""
        return self._added(moving.IConstantLayer(self._self(), shape, weights))

    def add_shuffle(self, input: ITensor) -> moving.IShuffleLayer:
        """Transposition, reshape, transposition, as they are set on the layer."""
        return self._added(moving.IShuffleLayer(self._self(), [input]))

    def add_identity(self, input: ITensor) -> layers.IIdentityLayer:
        """The input itself."""
        return self._added(layers.IIdentityLayer(self._self(), [input]))

    def add_cast(self, input: ITensor, to_type: DataType) -> layers.ICastLayer:
        """The input in another type: floats to integers truncate and saturate."""
        return self._added(layers.ICastLayer(self._self(), [input], to_type))

    def add_elementwise(self, input1: ITensor, input2: ITensor, op: ElementWiseOperation) -> layers.IElementWiseLayer:
        """A function of two tensors of one type, element by element; extents of 1 are repeated."""
        return self._added(layers.IElementWiseLayer(self._self(), [input1, input2], op))

    def add_unary(self, input: ITensor, op: UnaryOperation) -> layers.IUnaryLayer:
        """A function of one tensor, element by element."""
        return self._added(layers.IUnaryLayer(self._self(), [input], op))

    def add_activation(self, input: ITensor, type: ActivationType) -> layers.IActivationLayer:
        """An activation function; some take alpha and beta, set on the layer."""
        return self._added(layers.IActivationLayer(self._self(), [input], type))

    def add_matrix_multiply(
        self, input0: ITensor, op0: MatrixOperation, input1: ITensor, op1: MatrixOperation
    ) -> layers.IMatrixMultiplyLayer:
        """A matrix product over the last two dimensions, of operands that may be transposed first."""
        return self._added(layers.IMatrixMultiplyLayer(self._self(), [input0, input1], op0, op1))

    def add_softmax(self, input: ITensor) -> layers.ISoftMaxLayer:
        """Softmax along the dimension of layer.axes."""
        return self._added(layers.ISoftMaxLayer(self._self(), [input]))

    def add_reduce(self, input: ITensor, op: ReduceOperation, axes: int, keep_dims: bool) -> layers.IReduceLayer:
        """A reduction over the dimensions whose bits are set in `axes`."""
        return self._added(layers.IReduceLayer(self._self(), [input], op, axes, keep_dims))

    def add_concatenation(self, inputs: Sequence[ITensor]) -> moving.IConcatenationLayer:
        """Tensors joined along layer.axis."""
        return self._added(moving.IConcatenationLayer(self._self(), list(inputs)))

    def add_slice(self, input: ITensor, start: Sequence[int], shape: Sequence[int], stride: Sequence[int]) -> moving.ISliceLayer:
        """Every stride-th element of a block; the bounds are numbers, inside the input."""
        return self._added(moving.ISliceLayer(self._self(), [input], start, shape, stride))

    def add_gather(self, input: ITensor, indices: ITensor, axis: int) -> moving.IGatherLayer:
        """Rows of a tensor along one dimension, chosen by i32 or i64 indices."""
        return self._added(moving.IGatherLayer(self._self(), [input, indices], GatherMode.DEFAULT, axis))

    def add_gather_v2(self, input: ITensor, indices: ITensor, mode: GatherMode) -> moving.IGatherLayer:
        """The same in the ways of GatherMode; set layer.axis."""
        return self._added(moving.IGatherLayer(self._self(), [input, indices], mode, 0))

    def add_select(self, condition: ITensor, then_input: ITensor, else_input: ITensor) -> moving.ISelectLayer:
        """Elements of `then_input` where the bool `condition` holds, else of `else_input`."""
        return self._added(moving.ISelectLayer(self._self(), [condition, then_input, else_input]))

    def add_normalization(self, input: ITensor, scale: ITensor, bias: ITensor, axesMask: int) -> layers.INormalizationLayer:
        """Layer normalization over the last dimensions, whose bits are set in `axesMask`."""
        return self._added(layers.INormalizationLayer(self._self(), [input, scale, bias], axesMask))

    def add_rotary_embedding(
        self, input: ITensor, cos_cache: ITensor, sin_cache: ITensor, interleaved: bool, rotary_embedding_dim: int
    ) -> layers.IRotaryEmbeddingLayer:
        """Rotary position embedding of [B, heads, S, D] by cos and sin [B, S, D/2]."""
        return self._added(layers.IRotaryEmbeddingLayer(self._self(), [input, cos_cache, sin_cache], interleaved, rotary_embedding_dim))
