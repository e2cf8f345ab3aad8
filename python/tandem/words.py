"""What the methods of Network take: values, extents, element types."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["DTypeLike", "Dim", "Operand", "dtype_word"]

# A value of the network; an array, which becomes a constant; beside a value also a number, which takes its dtype.
Operand: TypeAlias = Any
# An extent or index: a number, or an expression over symbols such as "2*S + 1".
Dim: TypeAlias = int | str
# "f32", "bf16", "i64", ...; numpy's types and names are taken too.
DTypeLike: TypeAlias = Any

_WORDS = {
    "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2",
    "int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16", "int32": "i32", "uint32": "u32", "int64": "i64", "uint64": "u64",
}  # fmt: skip


def dtype_word(dtype: DTypeLike) -> str:
    """Our word for an element type, from ours or numpy's."""
    if isinstance(dtype, str):
        return _WORDS.get(dtype, dtype)
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    name = name.removesuffix("_") if name == "bool_" else str(name).removeprefix("torch.")
    return _WORDS.get(name, name)
