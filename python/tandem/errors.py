"""The exceptions of tandem: one class per error code, all of them tandem.Error."""

from __future__ import annotations

__all__ = [
    "AbortedError",
    "Error",
    "InternalError",
    "StoppedError",
    "InvalidArgumentError",
    "InvalidEngineError",
    "InvalidModelError",
    "IoError",
    "MismatchError",
    "OutOfMemoryError",
    "RankFailedError",
    "DeadlineError",
    "UnsupportedError",
]

_classes: dict[str, type[Error]] = {}


class Error(Exception):
    """What every call of tandem raises when it cannot do what was asked; str() is the whole sentence for people.

    Attributes:
        code: one word for programs, such as "invalid_argument", "timeout" or "rank_failed".
        rank: the rank that failed or reported, or None if the error is about none.
        node: the node the error is about, as `Op "name"`, or None.
    """

    code: str = "internal"
    rank: int | None
    node: str | None

    def __init__(self, message: str = "", *, node: str | None = None, rank: int | None = None) -> None:
        super().__init__(message)
        self.node = node
        self.rank = rank

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        _classes.setdefault(cls.code, cls)

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self.args, self.node, self.rank))


def _restore(cls: type[Error], args: tuple[str, ...], node: str | None, rank: int | None) -> Error:
    return cls(*args, node=node, rank=rank)


class InvalidArgumentError(Error, ValueError):
    """Wrong use of a call: an array of another dtype or shape than expected, a name that is none, use after close."""

    code = "invalid_argument"


class InvalidModelError(Error, ValueError):
    """The model breaks its own rules."""

    code = "invalid_model"


class UnsupportedError(Error, NotImplementedError):
    """Valid, but not something this build of tandem can do; the message names the node and the reason."""

    code = "unsupported"


class InvalidEngineError(Error, ValueError):
    """An engine file that is damaged, of another version, or none at all."""

    code = "invalid_engine"


class MismatchError(Error, ValueError):
    """Two sides that must agree do not: number of ranks, plan, weights."""

    code = "mismatch"


class IoError(Error, OSError):
    """A file or a system call failed."""

    code = "io"


class OutOfMemoryError(Error, MemoryError):
    """More memory was asked for than there is."""

    code = "out_of_memory"


class DeadlineError(Error, TimeoutError):
    """A deadline passed; `rank` is the rank that made no progress."""

    code = "timeout"


class RankFailedError(Error, RuntimeError):
    """Another rank exited, was killed or reported an error; `rank` names it."""

    code = "rank_failed"


class AbortedError(Error, RuntimeError):
    """The group or the model was ended before."""

    code = "aborted"


class StoppedError(Error, InterruptedError):
    """The caller asked to stop. A Ctrl-C gives KeyboardInterrupt instead."""

    code = "interrupted"


class InternalError(Error, RuntimeError):
    """A defect of tandem itself."""

    code = "internal"


def error_class(code: str) -> type[Error]:
    """The exception class of an error code."""
    return _classes.get(code, InternalError)
