"""OnnxParser: networks from ONNX files."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import TYPE_CHECKING

from ..errors import Error, InvalidArgumentError
from ..network import Network
from .closed import Closed, unsupported
from .enums import OnnxParserFlag
from .logger import ILogger, Logger, checked_logger

if TYPE_CHECKING:
    from .network import INetworkDefinition

__all__ = ["ErrorCode", "OnnxParser", "ParserError"]


class ErrorCode(IntEnum):
    """What kind of error it is."""

    SUCCESS = 0
    INTERNAL_ERROR = 1
    MEM_ALLOC_FAILED = 2
    MODEL_DESERIALIZE_FAILED = 3
    INVALID_VALUE = 4
    INVALID_GRAPH = 5
    INVALID_NODE = 6
    UNSUPPORTED_GRAPH = 7
    UNSUPPORTED_NODE = 8


def _code(error: Error) -> ErrorCode:
    if error.code == "unsupported":
        return ErrorCode.UNSUPPORTED_NODE if error.node else ErrorCode.UNSUPPORTED_GRAPH
    if error.code == "invalid_model":
        return ErrorCode.INVALID_NODE if error.node else ErrorCode.INVALID_GRAPH
    return {
        "io": ErrorCode.MODEL_DESERIALIZE_FAILED,
        "invalid_argument": ErrorCode.INVALID_VALUE,
        "out_of_memory": ErrorCode.MEM_ALLOC_FAILED,
    }.get(error.code, ErrorCode.INTERNAL_ERROR)


class ParserError(Closed):
    """Why a model could not be parsed; str() is the whole sentence."""

    _missing = {
        "file": "errors name the node of the model",
        "line": "errors name the node of the model",
        "func": "errors name the node of the model",
    }

    def __init__(self, error: Error) -> None:
        self._error = error

    def code(self) -> ErrorCode:
        """What kind of error it is."""
        return _code(self._error)

    def desc(self) -> str:
        """The whole sentence."""
        return str(self._error)

    def node_name(self) -> str:
        """The name of the node it is about; empty if it is about none."""
        return (self._error.node or "").partition(" ")[2].strip('"')

    def node_operator(self) -> str:
        """The operator of that node."""
        return (self._error.node or "").partition(" ")[0]

    def node(self) -> int:
        """-1: nodes are named, not numbered."""
        return -1

    def __str__(self) -> str:
        return f"{self.code().name}: {self.desc()}"

    __repr__ = __str__


class OnnxParser(Closed):
    """Fills an empty network with an ONNX model, as exporters and sharding tools write them. parse() returns whether that worked; if not,
    num_errors and get_error(i) say why, and the logger hears it."""

    _missing = {
        "get_used_vc_plugin_libraries": "there are no plugins",
        "supports_model_v2": "parse() tells",
        "supports_operator": "it depends on the node's attributes: parse() tells",
        "get_subgraph_nodes": "parse() tells",
    }

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._logger = checked_logger(logger)
        self._errors: list[ParserError] = []
        self._flags = 0

    def parse(self, model: object, path: str | os.PathLike[str] | None = None) -> bool:
        """From the bytes of a model; `path` is the file they come from, beside which external data lies."""
        folder = os.path.dirname(os.path.abspath(os.fspath(path))) if path is not None else ""
        return self._parse(model, folder)

    def parse_from_file(self, model: str | os.PathLike[str]) -> bool:
        """From a file."""
        return self._parse(os.fspath(model), "")

    def _parse(self, model: object, folder: str) -> bool:
        if self._network._inputs or self._network._layers:
            raise unsupported("parsing into a network that is not empty", "parse first, then add layers")
        self._errors = []
        try:
            self._network._begin_with(lambda ranks: Network.from_onnx(model, ranks=ranks, refittable=False, folder=folder))  # type: ignore[arg-type]
        except Error as error:
            self._errors.append(ParserError(error))
            self._logger.log(Logger.ERROR, str(error))
            return False
        return True

    @property
    def num_errors(self) -> int:
        """How many errors the last parse() met: 0 or 1, for it ends at the first."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        """Error `index`."""
        if not 0 <= index < len(self._errors):
            raise InvalidArgumentError(f"there is no error {index}; there are {len(self._errors)}")
        return self._errors[index]

    def clear_errors(self) -> None:
        """Forgets them."""
        self._errors = []

    @property
    def flags(self) -> int:
        """Bits `1 << int(OnnxParserFlag.X)`; NATIVE_INSTANCENORM holds anyway."""
        return self._flags

    @flags.setter
    def flags(self, flags: int) -> None:
        for flag in OnnxParserFlag:
            if flags >> int(flag) & 1:
                self.set_flag(flag)

    def set_flag(self, flag: OnnxParserFlag) -> None:
        """Takes NATIVE_INSTANCENORM; the others are about plugins and DLA and are refused."""
        flag = OnnxParserFlag(flag)
        if flag != OnnxParserFlag.NATIVE_INSTANCENORM:
            raise unsupported(f"OnnxParserFlag.{flag.name}", "there are no plugins" if "PLUGIN" in flag.name else "there is no DLA")
        self._flags |= 1 << int(flag)

    def clear_flag(self, flag: OnnxParserFlag) -> None:
        """Undoes set_flag."""
        self._flags &= ~(1 << int(flag))

    def get_flag(self, flag: OnnxParserFlag) -> bool:
        """Whether a flag is set."""
        return bool(self._flags >> int(flag) & 1)
