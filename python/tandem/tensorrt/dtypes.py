"""Element types, extents and weights, with TensorRT's words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from ..errors import InvalidArgumentError, UnsupportedError

__all__ = ["DataType", "Dims", "Weights", "bfloat16", "bool", "float16", "float32", "int32", "int64", "int8", "nptype", "uint8", "volume"]


class DataType(IntEnum):
    """Element types. INT4, FP4 and E8M0 cannot be the type of a tensor here."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8
    INT4 = 9
    FP4 = 10
    E8M0 = 11

    @property
    def itemsize(self) -> float:
        """Bytes of an element."""
        return _itemsizes[self]


_words = {
    DataType.FLOAT: "f32",
    DataType.HALF: "f16",
    DataType.INT8: "i8",
    DataType.INT32: "i32",
    DataType.BOOL: "bool",
    DataType.UINT8: "u8",
    DataType.FP8: "f8e4m3",
    DataType.BF16: "bf16",
    DataType.INT64: "i64",
}
_types = {word: kind for kind, word in _words.items()}
_itemsizes: dict[DataType, float] = {kind: {"i4": 0.5}.get(word, 1) for kind, word in _words.items()} | {
    DataType.FLOAT: 4,
    DataType.INT32: 4,
    DataType.HALF: 2,
    DataType.BF16: 2,
    DataType.INT64: 8,
    DataType.INT4: 0.5,
    DataType.FP4: 0.5,
    DataType.E8M0: 1,
}
_numpy = {
    DataType.FLOAT: "float32",
    DataType.HALF: "float16",
    DataType.INT8: "int8",
    DataType.INT32: "int32",
    DataType.BOOL: "bool",
    DataType.UINT8: "uint8",
    DataType.INT64: "int64",
}

float32, float16, bfloat16 = DataType.FLOAT, DataType.HALF, DataType.BF16
int8, int32, int64, uint8, bool = DataType.INT8, DataType.INT32, DataType.INT64, DataType.UINT8, DataType.BOOL


def to_word(dtype: DataType) -> str:
    """tandem's word for a type."""
    if dtype not in _words:
        raise UnsupportedError(
            f"tandem.tensorrt: tensors of {DataType(dtype).name} are not supported: there are {', '.join(t.name for t in _words)}"
        )
    return _words[dtype]


def from_word(word: str) -> DataType:
    """The type of tandem's word; UnsupportedError where TensorRT has none."""
    if word not in _types:
        raise UnsupportedError(f"tandem.tensorrt: TensorRT has no name for the element type {word}")
    return _types[word]


def nptype(trt_type: DataType) -> type:
    """The numpy type of a DataType; TypeError where numpy has none (BF16, FP8, …)."""
    import numpy

    if trt_type not in _numpy:
        raise TypeError(f"numpy has no type for {DataType(trt_type).name}")
    return numpy.dtype(_numpy[trt_type]).type


def volume(iterable: Iterable[int]) -> int:
    """The product of extents; 1 of none."""
    return math.prod(iterable)


class Dims(tuple[int, ...]):
    """Extents, as a tuple; -1 stands for one that is chosen at run time."""

    MAX_DIMS = 8

    def __new__(cls, *shape: int | Iterable[int]) -> Dims:
        extents = [d for part in shape for d in ((part,) if isinstance(part, int) else part)]
        return super().__new__(cls, (int(d) for d in extents))

    def numel(self) -> int:
        """The number of elements."""
        return volume(self)

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self))}{',' if len(self) == 1 else ''})"


class Weights:
    """Numbers of a network: an array that must not change while the network or its engine lives. Any array is one: `Weights(array)`."""

    def __init__(self, array: Any) -> None:
        import numpy

        if isinstance(array, DataType):
            raise InvalidArgumentError("tandem.tensorrt: Weights without values are not supported: give an array")
        self._array = numpy.ascontiguousarray(array)
        if self._array.dtype == numpy.float64:
            raise InvalidArgumentError("tandem.tensorrt: TensorRT has no weights of float64: give float32")

    def numpy(self) -> Any:
        """The values as a numpy array."""
        return self._array

    @property
    def dtype(self) -> DataType:
        """The type of the elements."""
        return numpy_type(self._array)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self._array.nbytes)

    def __len__(self) -> int:
        return self.size


def numpy_type(array: Any) -> DataType:
    """The DataType of a numpy array, those of ml_dtypes among them."""
    names = {"float32": "f32", "float16": "f16", "int8": "i8", "int32": "i32", "bool": "bool", "uint8": "u8", "int64": "i64"}
    names |= {"bfloat16": "bf16", "float8_e4m3fn": "f8e4m3"}
    name = array.dtype.name
    if name not in names:
        raise InvalidArgumentError(f"tandem.tensorrt: TensorRT has no weights of {name}")
    return from_word(names[name])
