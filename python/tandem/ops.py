"""The methods of Network, one per op. Made by tools/python_ops.py from src/ops/ops.def; do not edit. As long as their list."""
# ruff: noqa: RUF002 - formulas are written as in docs/ops.md

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from . import _core
from ._core import Value
from .words import Dim, DTypeLike, Operand, dtype_word


class NetworkOps(_core._Network):
    """Every op as a method."""

    def _add(self, op: str, operands: Sequence[Any], attributes: dict[str, Any], name: str) -> Value:
        return self._add_all(op, list(operands), attributes, name)[0]

    def abs(self, x: Operand, *, name: str = "") -> Value:
        """y = |x|."""
        return self._add("Abs", [x], {}, name)

    def add(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a + b; integers wrap."""
        return self._add("Add", [a, b], {}, name)

    def and_(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a and b."""
        return self._add("And", [a, b], {}, name)

    def cast(self, x: Operand, to: DTypeLike = "f32", *, name: str = "") -> Value:
        """y = x in another dtype: to integers truncating toward zero and saturating, to floats the nearest, to bool x ≠ 0.

        Args:
            to: dtype of the result.
        """
        return self._add("Cast", [x], {"to": dtype_word(to)}, name)

    def ceil(self, x: Operand, *, name: str = "") -> Value:
        """y = the smallest whole number that is at least x."""
        return self._add("Ceil", [x], {}, name)

    def cos(self, x: Operand, *, name: str = "") -> Value:
        """y = cos x."""
        return self._add("Cos", [x], {}, name)

    def div(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a/b; integers truncate toward zero."""
        return self._add("Div", [a, b], {}, name)

    def elu(self, x: Operand, alpha: float = 1.0, *, name: str = "") -> Value:
        """y = x where x > 0, else alpha·(exp x − 1).

        Args:
            alpha: limit for large negative x, negated.
        """
        return self._add("Elu", [x], {"alpha": alpha}, name)

    def equal(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = whether a = b."""
        return self._add("Equal", [a, b], {}, name)

    def erf(self, x: Operand, *, name: str = "") -> Value:
        """y = erf x, the error function."""
        return self._add("Erf", [x], {}, name)

    def exp(self, x: Operand, *, name: str = "") -> Value:
        """y = exp x."""
        return self._add("Exp", [x], {}, name)

    def floor(self, x: Operand, *, name: str = "") -> Value:
        """y = the largest whole number that is at most x."""
        return self._add("Floor", [x], {}, name)

    def gated(
        self,
        x: Operand,
        activation: Literal["none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"] = "silu",
        *,
        name: str = "",
    ) -> Value:
        """y = activation(first half of x)·(second half of x), along the last dimension; made by a pass from a gate and what it gates.

        Args:
            activation: applied to the first half.
        """
        return self._add("Gated", [x], {"activation": activation}, name)

    def gelu(self, x: Operand, approximate: Literal["none", "tanh"] = "none", *, name: str = "") -> Value:
        """y = x·Φ(x), Φ the normal distribution; or its approximation x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).

        Args:
            approximate: which of the two.
        """
        return self._add("Gelu", [x], {"approximate": approximate}, name)

    def greater(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = whether a > b."""
        return self._add("Greater", [a, b], {}, name)

    def greater_or_equal(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = whether a ≥ b."""
        return self._add("GreaterOrEqual", [a, b], {}, name)

    def hard_sigmoid(self, x: Operand, alpha: float = 0.2, *, beta: float = 0.5, name: str = "") -> Value:
        """y = max(0, min(1, alpha·x + beta)).

        Args:
            alpha: slope.
            beta: value at 0.
        """
        return self._add("HardSigmoid", [x], {"alpha": alpha, "beta": beta}, name)

    def hard_swish(self, x: Operand, *, name: str = "") -> Value:
        """y = x·max(0, min(1, x/6 + 1/2))."""
        return self._add("HardSwish", [x], {}, name)

    def is_inf(self, x: Operand, negative: bool = True, *, positive: bool = True, name: str = "") -> Value:
        """y = whether x is infinite, of a sign that is asked for.

        Args:
            negative: whether −∞ counts.
            positive: whether +∞ counts.
        """
        return self._add("IsInf", [x], {"negative": negative, "positive": positive}, name)

    def is_nan(self, x: Operand, *, name: str = "") -> Value:
        """y = whether x is not a number."""
        return self._add("IsNaN", [x], {}, name)

    def leaky_relu(self, x: Operand, alpha: float = 0.01, *, name: str = "") -> Value:
        """y = x where x ≥ 0, else alpha·x.

        Args:
            alpha: slope where x < 0.
        """
        return self._add("LeakyRelu", [x], {"alpha": alpha}, name)

    def less(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = whether a < b."""
        return self._add("Less", [a, b], {}, name)

    def less_or_equal(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = whether a ≤ b."""
        return self._add("LessOrEqual", [a, b], {}, name)

    def log(self, x: Operand, *, name: str = "") -> Value:
        """y = ln x."""
        return self._add("Log", [x], {}, name)

    def max(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = the larger of a and b; NaN if one is NaN."""
        return self._add("Max", [a, b], {}, name)

    def min(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = the smaller of a and b; NaN if one is NaN."""
        return self._add("Min", [a, b], {}, name)

    def mod(self, a: Operand, b: Operand, fmod: bool = False, *, name: str = "") -> Value:
        """y = the remainder of a/b, with the sign of b, or with fmod that of a.

        Args:
            fmod: whether the result has the sign of the dividend, not of the divisor.
        """
        return self._add("Mod", [a, b], {"fmod": fmod}, name)

    def mul(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a·b; integers wrap."""
        return self._add("Mul", [a, b], {}, name)

    def neg(self, x: Operand, *, name: str = "") -> Value:
        """y = −x; integers wrap."""
        return self._add("Neg", [x], {}, name)

    def not_(self, x: Operand, *, name: str = "") -> Value:
        """y = not x."""
        return self._add("Not", [x], {}, name)

    def or_(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a or b."""
        return self._add("Or", [a, b], {}, name)

    def pointwise(self, operands: Sequence[Operand], program: str = "Abs(a0)", *, name: str = "") -> Value:
        """A chain of element-wise functions of broadcast operands, such as t0=Add(a0,a1);Gelu(t0).

        Args:
            operands: a0, a1, ….
            program: statements separated by ';', operands a0, a1, …; src/ops/pointwise/program.h.
        """
        return self._add("Pointwise", operands, {"program": program}, name)

    def pow(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a to the power b; integers wrap."""
        return self._add("Pow", [a, b], {}, name)

    def reciprocal(self, x: Operand, *, name: str = "") -> Value:
        """y = 1/x."""
        return self._add("Reciprocal", [x], {}, name)

    def relu(self, x: Operand, *, name: str = "") -> Value:
        """y = max(0, x)."""
        return self._add("Relu", [x], {}, name)

    def round(self, x: Operand, *, name: str = "") -> Value:
        """y = the nearest whole number, the even one of two."""
        return self._add("Round", [x], {}, name)

    def sigmoid(self, x: Operand, *, name: str = "") -> Value:
        """y = 1/(1 + exp(−x))."""
        return self._add("Sigmoid", [x], {}, name)

    def sign(self, x: Operand, *, name: str = "") -> Value:
        """y = −1, 0 or 1, the sign of x."""
        return self._add("Sign", [x], {}, name)

    def silu(self, x: Operand, *, name: str = "") -> Value:
        """y = x/(1 + exp(−x))."""
        return self._add("Silu", [x], {}, name)

    def sin(self, x: Operand, *, name: str = "") -> Value:
        """y = sin x."""
        return self._add("Sin", [x], {}, name)

    def softplus(self, x: Operand, *, name: str = "") -> Value:
        """y = ln(1 + exp x)."""
        return self._add("Softplus", [x], {}, name)

    def sqrt(self, x: Operand, *, name: str = "") -> Value:
        """y = √x."""
        return self._add("Sqrt", [x], {}, name)

    def sub(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a − b; integers wrap."""
        return self._add("Sub", [a, b], {}, name)

    def tanh(self, x: Operand, *, name: str = "") -> Value:
        """y = tanh x."""
        return self._add("Tanh", [x], {}, name)

    def where(self, condition: Operand, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = a where the condition (operand 0) holds, else b.

        Args:
            condition: bool.
        """
        return self._add("Where", [condition, a, b], {}, name)

    def xor(self, a: Operand, b: Operand, *, name: str = "") -> Value:
        """y = either a or b, not both."""
        return self._add("Xor", [a, b], {}, name)

    def matmul(
        self,
        a: Operand,
        b: Operand,
        bias: Operand | None = None,
        residual: Operand | None = None,
        *,
        activation: Literal["none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"] = "none",
        name: str = "",
    ) -> Value:
        """y[…,m,n] = activation(Σₖ a[…,m,k]·b[…,k,n] + bias[n]) + residual[…,m,n]; leading dimensions broadcast.

        Args:
            bias: [n].
            residual: the result's shape.
            activation: applied before the residual is added.
        """
        return self._add("MatMul", [a, b, bias, residual], {"activation": activation}, name)

    def average_pool(
        self,
        x: Operand,
        kernel: Sequence[int] = (),
        *,
        strides: Sequence[int] = (),
        dilations: Sequence[int] = (),
        pads: Sequence[Dim] = (),
        layout: Literal["channels_first", "channels_last"] = "channels_first",
        ceil: bool = False,
        count_padding: bool = False,
        name: str = "",
    ) -> Value:
        """y[n,c,o…] = the mean of x[n,c,o·stride + k·dilation − pad…] over taps k…, those in the padding left out unless count_padding.

        Args:
            x: [n,c,spatial…], with layout channels_last [n,spatial…,c].
            kernel: taps of the window, per spatial dimension.
            strides: rows from one window to the next, per spatial dimension; empty: 1.
            dilations: rows from one tap to the next; empty: 1.
            pads: rows of padding before each spatial dimension, then after each; empty: none.
            layout: which dimension of images has their channels: 1 or the last.
            ceil: the last window may hang over the end, as long as it begins before it.
            count_padding: divide by the taps in the padding too.
        """
        attributes: dict[str, Any] = {
            "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "layout": layout, "ceil": ceil, "count_padding":
            count_padding,
        }  # fmt: skip
        return self._add("AveragePool", [x], attributes, name)

    def conv(
        self,
        x: Operand,
        w: Operand,
        bias: Operand | None = None,
        residual: Operand | None = None,
        *,
        strides: Sequence[int] = (),
        dilations: Sequence[int] = (),
        pads: Sequence[Dim] = (),
        layout: Literal["channels_first", "channels_last"] = "channels_first",
        activation: Literal["none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"] = "none",
        name: str = "",
    ) -> Value:
        """y[n,m,o…] = activation(Σ over channels c of m's group and taps k… of x[n,c,o·stride + k·dilation − pad…]·w[m,c,k…] + bias[m] +
        residual[n,m,o…]); there are as many groups as w's channels go into x's. With layout channels_last it is x[n,…,c], w[m,k…,c] and
        y[n,o…,m].

        Args:
            x: [n,c,spatial…].
            w: [m,c/groups,taps…].
            bias: [m] or [m,1,…].
            residual: the result's shape.
            strides: rows from one window to the next, per spatial dimension; empty: 1.
            dilations: rows from one tap to the next; empty: 1.
            pads: rows of padding before each spatial dimension, then after each; empty: none.
            layout: which dimension of images has their channels: 1 or the last.
            activation: applied last.
        """
        attributes: dict[str, Any] = {
            "strides": strides, "dilations": dilations, "pads": pads, "layout": layout, "activation": activation,
        }  # fmt: skip
        return self._add("Conv", [x, w, bias, residual], attributes, name)

    def group_norm(
        self,
        x: Operand,
        scale: Operand,
        bias: Operand,
        group_size: int = 1,
        *,
        epsilon: float = 1e-05,
        name: str = "",
    ) -> Value:
        """y = (x − mean)/√(variance + epsilon)·scale[c] + bias[c], the statistics over group_size channels and all of their elements.

        Args:
            x: [n,c,…].
            scale: [c].
            bias: [c].
            group_size: channels that are normalized together.
            epsilon: added to the variance.
        """
        return self._add("GroupNorm", [x, scale, bias], {"group_size": group_size, "epsilon": epsilon}, name)

    def max_pool(
        self,
        x: Operand,
        kernel: Sequence[int] = (),
        *,
        strides: Sequence[int] = (),
        dilations: Sequence[int] = (),
        pads: Sequence[Dim] = (),
        layout: Literal["channels_first", "channels_last"] = "channels_first",
        ceil: bool = False,
        name: str = "",
    ) -> Value:
        """y[n,c,o…] = the largest of x[n,c,o·stride + k·dilation − pad…] over taps k…, those in the padding left out.

        Args:
            x: [n,c,spatial…], with layout channels_last [n,spatial…,c].
            kernel: taps of the window, per spatial dimension.
            strides: rows from one window to the next, per spatial dimension; empty: 1.
            dilations: rows from one tap to the next; empty: 1.
            pads: rows of padding before each spatial dimension, then after each; empty: none.
            layout: which dimension of images has their channels: 1 or the last.
            ceil: the last window may hang over the end, as long as it begins before it.
        """
        attributes: dict[str, Any] = {
            "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "layout": layout, "ceil": ceil,
        }  # fmt: skip
        return self._add("MaxPool", [x], attributes, name)

    def resize(
        self,
        x: Operand,
        sizes: Sequence[Dim] = (),
        *,
        scales: Any = None,
        mode: Literal["nearest", "linear", "cubic"] = "nearest",
        coordinates: Literal["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"] = "half_pixel",
        nearest: Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] = "round_prefer_floor",
        cubic_a: float = -0.75,
        exclude_outside: bool = False,
        name: str = "",
    ) -> Value:
        """Samples x at other extents of its last dimensions: row o of the result lies at o/scale, shifted as `coordinates` says, where
        scale is the ratio of the extents unless given; taken from the nearest row, or linearly or cubically from its neighbours.

        Args:
            sizes: the extents of the last dimensions of the result.
            scales: one for each of them; empty: the ratios.
            mode: how rows are mixed.
            coordinates: ONNX's coordinate_transformation_mode.
            nearest: which row is nearest.
            cubic_a: the coefficient of cubic.
            exclude_outside: cubic gives no weight to rows outside.
        """
        attributes: dict[str, Any] = {
            "sizes": sizes, **({} if scales is None else {"scales": scales}), "mode": mode, "coordinates": coordinates, "nearest": nearest,
            "cubic_a": cubic_a, "exclude_outside": exclude_outside,
        }  # fmt: skip
        return self._add("Resize", [x], attributes, name)

    def dequant_matmul(
        self,
        a: Operand,
        b: Operand,
        bias: Operand | None = None,
        residual: Operand | None = None,
        scale: Operand | None = None,
        zero_point: Operand | None = None,
        *,
        activation: Literal["none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"] = "none",
        block_size: int = 0,
        name: str = "",
    ) -> Value:
        """y[…,m,n] = activation(Σₖ a[…,m,k]·(b[k,n] - zero_point)·scale + bias[n]) + residual[…,m,n], b being quantised; made by a pass
        from DequantizeLinear and MatMul.

        Args:
            bias: [n].
            residual: the result's shape.
            scale: always given: one, [n], or [⌈k/block_size⌉,n].
            zero_point: like the scale.
            activation: applied before the residual is added.
            block_size: rows of b that share a scale; 0: all.
        """
        attributes: dict[str, Any] = {
            "activation": activation, "block_size": block_size,
        }  # fmt: skip
        return self._add("DequantMatMul", [a, b, bias, residual, scale, zero_point], attributes, name)

    def dequantize_linear(
        self,
        x: Operand,
        scale: Operand,
        zero_point: Operand | None = None,
        *,
        axis: int = 1,
        block_size: int = 0,
        to: DTypeLike = "f32",
        name: str = "",
    ) -> Value:
        """y = (x - zero_point)·scale, rounded once to the dtype of the result.

        Args:
            scale: one, one per index of the axis, or one per block.
            zero_point: like the scale.
            axis: along which scales differ.
            block_size: elements along the axis that share a scale; 0: no blocks.
            to: dtype of the result.
        """
        return self._add("DequantizeLinear", [x, scale, zero_point], {"axis": axis, "block_size": block_size, "to": dtype_word(to)}, name)

    def quant_matmul(
        self,
        a: Operand,
        b: Operand,
        bias: Operand | None = None,
        residual: Operand | None = None,
        scale: Operand | None = None,
        a_scale: Operand | None = None,
        *,
        activation: Literal["none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"] = "none",
        to: DTypeLike = "f32",
        name: str = "",
    ) -> Value:
        """y[…,m,n] = activation(Σₖ a[…,m,k]·b[k,n]·a_scale·scale[n] + bias[n]) + residual[…,m,n], a and b being quantised, both i8 or both
        8-bit floats; made by a pass from DequantizeLinear and MatMul.

        Args:
            bias: [n].
            residual: the result's shape.
            scale: of b, always given: one, or [n].
            a_scale: always given: one number.
            activation: applied before the residual is added.
            to: dtype of the result, of bias and residual.
        """
        return self._add("QuantMatMul", [a, b, bias, residual, scale, a_scale], {"activation": activation, "to": dtype_word(to)}, name)

    def quantize_linear(
        self,
        x: Operand,
        scale: Operand,
        zero_point: Operand | None = None,
        *,
        axis: int = 1,
        block_size: int = 0,
        to: DTypeLike = "u8",
        saturate: bool = True,
        name: str = "",
    ) -> Value:
        """y = saturate(round(x / scale) + zero_point): the quotient rounded in the scale's dtype, then to nearest even; NaN counts as 0.
        For 8-bit floats y = x / scale rounded to them, NaN kept.

        Args:
            scale: one, one per index of the axis, or one per block.
            zero_point: like the scale.
            axis: along which scales differ.
            block_size: elements along the axis that share a scale; 0: no blocks.
            to: dtype of the result.
            saturate: of 8-bit floats: the largest number for what is larger, not infinity or NaN.
        """
        attributes: dict[str, Any] = {
            "axis": axis, "block_size": block_size, "to": dtype_word(to), "saturate": saturate,
        }  # fmt: skip
        return self._add("QuantizeLinear", [x, scale, zero_point], attributes, name)

    def add_layer_norm(
        self,
        x: Operand,
        residual: Operand,
        scale: Operand,
        bias: Operand | None = None,
        offset: Operand | None = None,
        *,
        axis: int = -1,
        epsilon: float = 1e-05,
        name: str = "",
    ) -> tuple[Value, Value]:
        """Layer normalization of the sum of x, a residual and an optional offset, with scale and optional bias; results: the norm, and the
        sum.

        Args:
            residual: like x.
            scale: broadcasts to the normalized dimensions.
            bias: broadcasts to the normalized dimensions.
            offset: broadcasts to the normalized dimensions.
            axis: the first of the normalized dimensions, which are the last ones.
            epsilon: added to the variance or mean square.
        """
        r0, r1 = self._add_all("AddLayerNorm", [x, residual, scale, bias, offset], {"axis": axis, "epsilon": epsilon}, name)
        return r0, r1

    def add_rms_norm(
        self,
        x: Operand,
        residual: Operand,
        scale: Operand,
        offset: Operand | None = None,
        *,
        axis: int = -1,
        epsilon: float = 1e-05,
        name: str = "",
    ) -> tuple[Value, Value]:
        """RMS normalization of the sum of x, a residual and an optional offset, with scale; results: the norm, and the sum.

        Args:
            residual: like x.
            scale: broadcasts to the normalized dimensions.
            offset: broadcasts to the normalized dimensions.
            axis: the first of the normalized dimensions, which are the last ones.
            epsilon: added to the variance or mean square.
        """
        r0, r1 = self._add_all("AddRmsNorm", [x, residual, scale, offset], {"axis": axis, "epsilon": epsilon}, name)
        return r0, r1

    def layer_norm(
        self,
        x: Operand,
        scale: Operand,
        bias: Operand | None = None,
        *,
        axis: int = -1,
        epsilon: float = 1e-05,
        name: str = "",
    ) -> Value:
        """y = (x − mean)/√(variance + epsilon)·scale + bias over the last dimensions.

        Args:
            scale: broadcasts to the normalized dimensions.
            bias: broadcasts to the normalized dimensions.
            axis: the first of the normalized dimensions, which are the last ones.
            epsilon: added to the variance or mean square.
        """
        return self._add("LayerNorm", [x, scale, bias], {"axis": axis, "epsilon": epsilon}, name)

    def rms_norm(self, x: Operand, scale: Operand, axis: int = -1, *, epsilon: float = 1e-05, name: str = "") -> Value:
        """y = x/√(mean of x² + epsilon)·scale over the last dimensions.

        Args:
            scale: broadcasts to the normalized dimensions.
            axis: the first of the normalized dimensions, which are the last ones.
            epsilon: added to the variance or mean square.
        """
        return self._add("RmsNorm", [x, scale], {"axis": axis, "epsilon": epsilon}, name)

    def log_softmax(self, x: Operand, axis: int = -1, *, name: str = "") -> Value:
        """y = x − ln Σ exp x, the sum along `axis`.

        Args:
            axis: the dimension summed over; negative: from the end.
        """
        return self._add("LogSoftmax", [x], {"axis": axis}, name)

    def softmax(self, x: Operand, axis: int = -1, *, name: str = "") -> Value:
        """y = exp x / Σ exp x, the sum along `axis`.

        Args:
            axis: the dimension summed over; negative: from the end.
        """
        return self._add("Softmax", [x], {"axis": axis}, name)

    def flat_attention(
        self,
        q: Operand,
        k: Operand,
        v: Operand,
        mask: Operand | None = None,
        query_lengths: Operand | None = None,
        key_lengths: Operand | None = None,
        past: Operand | None = None,
        *,
        heads: int = 1,
        kv_heads: int = 1,
        size: int = 1,
        value_size: int = 1,
        begins: Sequence[int] = (0, 0, 0),
        scale: float = 1.0,
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
        """Attention whose q, k and v are columns of [B,S,·], a row's heads beside each other, and whose result is [B,Sq,Hq·Dv]; made by a
        pass, with Attention's operands and meaning. q, k and v may be parts of one value.

        Args:
            mask: bool (true: attend) or added to the scores; broadcasts to [B,Hq,Sq,Skv].
            query_lengths: i32 or i64 [B]: rows from there on are zeros.
            key_lengths: i32 or i64 [B]: columns from there on are not attended to.
            past: i32 or i64 scalar, for causal=offset: keys before the first query.
            heads: Hq.
            kv_heads: Hkv.
            size: D, of q and k.
            value_size: Dv.
            begins: the first column of q, k and v in their operands.
            scale: factor of q·kᵀ; importers write 1/√D where a file leaves it out.
            causal: j ≤ i, j ≤ i + Skv − Sq, j ≤ i + past.
            softcap: c: scores become c·tanh(score/c) before the mask; 0: they stay.
            empty_rows: the result of a row that may attend to nothing.
            axis: mesh axis over which the sequence is split; empty: none, or `groups`, or all ranks.
            groups: explicit groups of ranks instead of an axis.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            split: what the ranks hold parts of.
            layout: which positions a rank holds.
            algorithm: how the ranks exchange.
            extent: length of the whole query sequence if split; 0: as many as there are.
            kv_extent: length of the whole key sequence if split; 0: as many as there are.
        """
        attributes: dict[str, Any] = {
            "heads": heads, "kv_heads": kv_heads, "size": size, "value_size": value_size, "begins": begins, "scale": scale, "causal":
            causal, "softcap": softcap, "empty_rows": empty_rows, "axis": axis, "groups": groups, "num_ranks": num_ranks, "split":
            split, "layout": layout, "algorithm": algorithm, "extent": extent, "kv_extent": kv_extent,
        }  # fmt: skip
        return self._add("FlatAttention", [q, k, v, mask, query_lengths, key_lengths, past], attributes, name)

    def rotary_embedding(
        self,
        x: Operand,
        cos: Operand,
        sin: Operand,
        interleaved: bool = False,
        *,
        order: Literal["bhsd", "bshd"] = "bhsd",
        rotary_dim: int = 0,
        name: str = "",
    ) -> Value:
        """Rotates pairs (x₁, x₂) of each head of x [B,H,S,D] to (x₁·cos − x₂·sin, x₂·cos + x₁·sin), with cos and sin [B or 1, S, R/2], R
        the rotated elements; pairs are (j, j + R/2), or neighbours if interleaved.

        Args:
            interleaved: whether pairs are neighbours.
            order: whether heads or positions come first in x.
            rotary_dim: rotated elements of a head; 0: all.
        """
        return self._add("RotaryEmbedding", [x, cos, sin], {"interleaved": interleaved, "order": order, "rotary_dim": rotary_dim}, name)

    def arg_max(self, x: Operand, axis: int = 0, *, keepdims: bool = True, last: bool = False, name: str = "") -> Value:
        """The index (i64) of the largest element along `axis`.

        Args:
            axis: the dimension searched.
            keepdims: whether that dimension stays with extent 1.
            last: whether the last of equal elements counts, not the first.
        """
        return self._add("ArgMax", [x], {"axis": axis, "keepdims": keepdims, "last": last}, name)

    def arg_min(self, x: Operand, axis: int = 0, *, keepdims: bool = True, last: bool = False, name: str = "") -> Value:
        """The index (i64) of the smallest element along `axis`.

        Args:
            axis: the dimension searched.
            keepdims: whether that dimension stays with extent 1.
            last: whether the last of equal elements counts, not the first.
        """
        return self._add("ArgMin", [x], {"axis": axis, "keepdims": keepdims, "last": last}, name)

    def cum_sum(self, x: Operand, axis: int = 0, *, exclusive: bool = False, reverse: bool = False, name: str = "") -> Value:
        """y[i] = the sum of x[0 … i] along `axis`; exclusive: of x[0 … i−1]; reverse: from the end.

        Args:
            axis: the dimension summed along.
            exclusive: whether x[i] itself is left out.
            reverse: whether it sums from the end.
        """
        return self._add("CumSum", [x], {"axis": axis, "exclusive": exclusive, "reverse": reverse}, name)

    def reduce(
        self,
        x: Operand,
        kind: Literal["sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum", "log_sum_exp"] = "sum",
        *,
        axes: Sequence[int] = (),
        keepdims: bool = True,
        name: str = "",
    ) -> Value:
        """The sum, mean, max, min, prod, l1, l2, sum_square, log_sum or log_sum_exp of x over some axes.

        Args:
            kind: which of them.
            axes: the dimensions reduced.
            keepdims: whether a reduced dimension stays with extent 1.
        """
        return self._add("Reduce", [x], {"kind": kind, "axes": axes, "keepdims": keepdims}, name)

    def top_k(self, x: Operand, axis: int = -1, *, k: Dim = 1, largest: bool = True, name: str = "") -> tuple[Value, Value]:
        """The k largest (or smallest) elements along `axis`, sorted, and their indices (i64); of equal elements the one with the lower
        index comes first, and NaN is larger than any number, as numpy sorts: first among the largest, last among the smallest.

        Args:
            axis: the dimension searched.
            k: how many elements, at most the extent.
            largest: whether the largest, else the smallest.
        """
        r0, r1 = self._add_all("TopK", [x], {"axis": axis, "k": k, "largest": largest}, name)
        return r0, r1

    def concat(self, parts: Sequence[Operand], axis: int = 0, *, name: str = "") -> Value:
        """Joins operands of equal extents elsewhere along one axis.

        Args:
            axis: the dimension that grows; negative: from the end.
        """
        return self._add("Concat", parts, {"axis": axis}, name)

    def expand(self, x: Operand, shape: Sequence[Dim] = (), *, name: str = "") -> Value:
        """Repeats dimensions of extent 1, and adds leading ones, to reach the given shape.

        Args:
            shape: the extents of the result.
        """
        return self._add("Expand", [x], {"shape": shape}, name)

    def pad(
        self,
        x: Operand,
        pads: Sequence[Dim] = (),
        *,
        mode: Literal["constant", "reflect", "edge"] = "constant",
        value: float = 0.0,
        name: str = "",
    ) -> Value:
        """Adds rows before and after each dimension: a value, the mirrored rows or the repeated edge.

        Args:
            pads: rows before each dimension, then rows after each.
            mode: what is added.
            value: of constant.
        """
        return self._add("Pad", [x], {"pads": pads, "mode": mode, "value": value}, name)

    def reshape(self, x: Operand, shape: Sequence[Dim] = (), *, name: str = "") -> Value:
        """The same elements in row-major order under other extents.

        Args:
            shape: the extents of the result.
        """
        return self._add("Reshape", [x], {"shape": shape}, name)

    def slice(
        self,
        x: Operand,
        starts: Sequence[Dim] = (),
        *,
        ends: Sequence[Dim] = (),
        axes: Sequence[int] = (),
        steps: Sequence[int] = (),
        name: str = "",
    ) -> Value:
        """Elements start, start+step, … before end along each listed axis; bounds lie inside the extent, an end of -1 is before the first
        element.

        Args:
            starts: the first index along each listed axis.
            ends: the index after the last.
            axes: the dimensions that are cut.
            steps: empty: all 1.
        """
        return self._add("Slice", [x], {"starts": starts, "ends": ends, "axes": axes, "steps": steps}, name)

    def transpose(self, x: Operand, permutation: Sequence[int] = (), *, name: str = "") -> Value:
        """Reorders dimensions: dimension i of the result is dimension permutation[i] of the operand.

        Args:
            permutation: one number per dimension of the result.
        """
        return self._add("Transpose", [x], {"permutation": permutation}, name)

    def trilu(self, x: Operand, upper: bool = True, *, k: Dim = 0, name: str = "") -> Value:
        """Keeps the elements on and above (or below) the k-th diagonal of the last two dimensions; the others become 0.

        Args:
            upper: whether the part above is kept, else the one below.
            k: the diagonal: column − row.
        """
        return self._add("Trilu", [x], {"upper": upper, "k": k}, name)

    def gather(self, table: Operand, indices: Operand, axis: int = 0, *, base: Dim = 0, whole: Dim = 0, name: str = "") -> Value:
        """Rows of a table along one axis, chosen by integer indices; negative indices count from the end.

        Args:
            indices: i32 or i64.
            axis: the dimension that is indexed.
            base: row of the whole table that the part begins with.
            whole: rows of the whole table, whose indices these are; rows that the part lacks give zeros (0: the table is whole).
        """
        return self._add("Gather", [table, indices], {"axis": axis, "base": base, "whole": whole}, name)

    def gather_elements(self, data: Operand, indices: Operand, axis: int = 0, *, name: str = "") -> Value:
        """result[i, j, …] = data[i, indices[i, j, …], …], the index replacing the position along one axis.

        Args:
            indices: i32 or i64.
            axis: the dimension that is indexed.
        """
        return self._add("GatherElements", [data, indices], {"axis": axis}, name)

    def gather_nd(self, data: Operand, indices: Operand, batch_dims: int = 0, *, name: str = "") -> Value:
        """Slices of data at index tuples: the last dimension of indices names a position in the leading dimensions after the batch.

        Args:
            indices: i32 or i64.
            batch_dims: leading dimensions that data and indices share.
        """
        return self._add("GatherND", [data, indices], {"batch_dims": batch_dims}, name)

    def non_zero(self, x: Operand, symbol: str = "", *, name: str = "") -> tuple[Value, Value]:
        """The indices of the elements that are not zero, in row-major order: column j of `indices` ([rank of x, number]) is the index of
        the j-th of them; NaN is not zero, −0 is. The number is known only when the op has run: its extent is the measured symbol
        `symbol`, at most the number of elements, and `count` holds it.

        Args:
            symbol: the name of that extent, which no other has; a network gives it one where it is empty.
        """
        r0, r1 = self._add_all("NonZero", [x], {"symbol": symbol}, name)
        return r0, r1

    def scatter_nd(
        self,
        data: Operand,
        indices: Operand,
        updates: Operand,
        reduction: Literal["none", "add", "mul", "max", "min"] = "none",
        *,
        name: str = "",
    ) -> Value:
        """A copy of data with slices at index tuples replaced by, or combined with, those of updates; in order where tuples repeat.

        Args:
            indices: i32 or i64.
            reduction: how updates meet data; none: they replace it.
        """
        return self._add("ScatterND", [data, indices, updates], {"reduction": reduction}, name)

    def dim_value(self, values: Sequence[Dim] = (), *, shape: Sequence[int] = (), dtype: DTypeLike = "i64", name: str = "") -> Value:
        """Integers that follow from the input shapes, such as a product of extents.

        Args:
            values: row-major.
            shape: of the result; [] is a scalar.
            dtype: of the result.
        """
        return self._add("DimValue", [], {"values": values, "shape": shape, "dtype": dtype_word(dtype)}, name)

    def iota(self, offset: Dim = 0, *, extent: Dim = 0, dtype: DTypeLike = "i64", name: str = "") -> Value:
        """offset, offset+1, … of the given extent; the only value that may depend on the rank's coordinates.

        Args:
            offset: the first number; may hold coordinates such as @cp.
            extent: how many.
            dtype: of the result.
        """
        return self._add("Iota", [], {"offset": offset, "extent": extent, "dtype": dtype_word(dtype)}, name)

    def custom(self, x: Sequence[Operand], op: str = "", *, attributes: str = "", name: str = "") -> Value:
        """An op of the user's own, which the program registers (tandem/custom_op.h).

        Args:
            op: "domain::name".
            attributes: of the model's node, as text.
        """
        return self._add("Custom", x, {"op": op, "attributes": attributes}, name)

    def all_gather(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        dim: int = 0,
        trim: Dim = 0,
        name: str = "",
    ) -> Value:
        """The inputs of all ranks, joined along `dim` in the order of the ranks.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            dim: dimension that is joined or cut.
            trim: rows to keep of the joined ones, which end in padding; 0: all.
        """
        return self._add("AllGather", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "dim": dim, "trim": trim}, name)

    def all_reduce(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        reduce: Literal["sum", "prod", "max", "min", "avg"] = "sum",
        name: str = "",
    ) -> Value:
        """The reduction of the inputs over the ranks, on every rank.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            reduce: how the inputs are reduced.
        """
        return self._add("AllReduce", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "reduce": reduce}, name)

    def all_reduce_add_layer_norm(
        self,
        x: Operand,
        residual: Operand,
        scale: Operand,
        bias: Operand | None = None,
        offset: Operand | None = None,
        *,
        axis: str = "",
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        dim: int = -1,
        epsilon: float = 1e-05,
        name: str = "",
    ) -> tuple[Value, Value]:
        """AddLayerNorm of the sum of x over the ranks, rounded to its type, on every rank; results: the norm, and the sum with residual and
        offset.

        Args:
            x: this rank's part of the sum.
            residual: like x.
            scale: broadcasts to the normalized dimensions.
            bias: broadcasts to the normalized dimensions.
            offset: broadcasts to the normalized dimensions.
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            dim: the first of the normalized dimensions, which are the last ones.
            epsilon: added to the variance or mean square.
        """
        attributes: dict[str, Any] = {
            "axis": axis, "groups": groups, "num_ranks": num_ranks, "dim": dim, "epsilon": epsilon,
        }  # fmt: skip
        r0, r1 = self._add_all("AllReduceAddLayerNorm", [x, residual, scale, bias, offset], attributes, name)
        return r0, r1

    def all_reduce_add_rms_norm(
        self,
        x: Operand,
        residual: Operand,
        scale: Operand,
        offset: Operand | None = None,
        *,
        axis: str = "",
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        dim: int = -1,
        epsilon: float = 1e-05,
        name: str = "",
    ) -> tuple[Value, Value]:
        """AddRmsNorm of the sum of x over the ranks, rounded to its type, on every rank; results: the norm, and the sum with residual and
        offset.

        Args:
            x: this rank's part of the sum.
            residual: like x.
            scale: broadcasts to the normalized dimensions.
            offset: broadcasts to the normalized dimensions.
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            dim: the first of the normalized dimensions, which are the last ones.
            epsilon: added to the variance or mean square.
        """
        attributes: dict[str, Any] = {
            "axis": axis, "groups": groups, "num_ranks": num_ranks, "dim": dim, "epsilon": epsilon,
        }  # fmt: skip
        r0, r1 = self._add_all("AllReduceAddRmsNorm", [x, residual, scale, offset], attributes, name)
        return r0, r1

    def all_to_all(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        split_dim: int = 0,
        concat_dim: int = 0,
        trim: Dim = 0,
        name: str = "",
    ) -> Value:
        """Block r along `split_dim` of every rank's input, joined along `concat_dim` in the order of the ranks.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            split_dim: dimension that is cut into one block per rank.
            concat_dim: dimension along which received blocks are joined.
            trim: rows to keep of the joined ones, which end in padding; 0: all.
        """
        attributes: dict[str, Any] = {
            "axis": axis, "groups": groups, "num_ranks": num_ranks, "split_dim": split_dim, "concat_dim": concat_dim, "trim": trim,
        }  # fmt: skip
        return self._add("AllToAll", [x], attributes, name)

    def append(
        self,
        past: Operand,
        new: Operand,
        axis: str = "",
        *,
        num_ranks: int | None = None,
        dim: int = 0,
        extent: Dim = 0,
        name: str = "",
    ) -> Value:
        """Concat(past, new) along `dim`, where rank r holds block r of ⌈extent/N⌉ rows of `past`, all ranks hold `new`, and rank r gets
        block r of ⌈(extent + rows of new)/N⌉ rows; rows past the end are zeros.

        Args:
            axis: mesh axis whose groups take part; empty: all ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            dim: dimension that grows.
            extent: rows of the past on all ranks together.
        """
        return self._add("Append", [past, new], {"axis": axis, "num_ranks": num_ranks, "dim": dim, "extent": extent}, name)

    def broadcast(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        root: int = -1,
        name: str = "",
    ) -> Value:
        """The input of the root, on every rank.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            root: position in the group.
        """
        return self._add("Broadcast", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "root": root}, name)

    def gather_to(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        root: int = -1,
        dim: int = 0,
        trim: Dim = 0,
        name: str = "",
    ) -> Value:
        """On the root the inputs of all ranks joined along `dim`, zeros elsewhere.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            root: position in the group.
            dim: dimension that is joined or cut.
            trim: rows to keep of the joined ones, which end in padding; 0: all.
        """
        attributes: dict[str, Any] = {
            "axis": axis, "groups": groups, "num_ranks": num_ranks, "root": root, "dim": dim, "trim": trim,
        }  # fmt: skip
        return self._add("GatherTo", [x], attributes, name)

    def reduce_scatter(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        reduce: Literal["sum", "prod", "max", "min", "avg"] = "sum",
        dim: int = 0,
        name: str = "",
    ) -> Value:
        """Block r along `dim` of the reduction of the inputs over the ranks, on rank r.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            reduce: how the inputs are reduced.
            dim: dimension that is joined or cut.
        """
        return self._add("ReduceScatter", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "reduce": reduce, "dim": dim}, name)

    def reduce_to(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        reduce: Literal["sum", "prod", "max", "min", "avg"] = "sum",
        root: int = -1,
        name: str = "",
    ) -> Value:
        """On the root the reduction of the inputs over the ranks, zeros elsewhere.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            reduce: how the inputs are reduced.
            root: position in the group.
        """
        return self._add("ReduceTo", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "reduce": reduce, "root": root}, name)

    def scatter(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        root: int = -1,
        dim: int = 0,
        name: str = "",
    ) -> Value:
        """Block r along `dim` of the root's input, on rank r.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            root: position in the group.
            dim: dimension that is joined or cut.
        """
        return self._add("Scatter", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "root": root, "dim": dim}, name)

    def shard_slice(self, x: Operand, dim: int = 0, *, begin: Dim = 0, length: Dim = 0, name: str = "") -> Value:
        """Rows begin … begin+length of x along `dim`; rows past its end are zeros. `begin` may hold coordinates such as @tp.

        Args:
            dim: the dimension that is cut.
            begin: the first row.
            length: how many rows.
        """
        return self._add("ShardSlice", [x], {"dim": dim, "begin": begin, "length": length}, name)

    def shift(
        self,
        x: Operand,
        axis: str = "",
        *,
        groups: Sequence[Sequence[int]] = (),
        num_ranks: int | None = None,
        shift: int = 1,
        name: str = "",
    ) -> Value:
        """The input of the rank that lies `shift` before this one, cyclically.

        Args:
            axis: mesh axis whose groups take part; empty: `groups`, or all ranks.
            groups: explicit disjoint groups of ranks.
            num_ranks: ranks in a group; None: as axis, groups or mesh say.
            shift: k: rank r gets the input of rank (r − k) mod N.
        """
        return self._add("Shift", [x], {"axis": axis, "groups": groups, "num_ranks": num_ranks, "shift": shift}, name)
