"""What tandem.tensorrt says of names and settings that it does not have."""

from __future__ import annotations

from ..errors import UnsupportedError

__all__ = ["Closed", "UnsupportedNameError", "unsupported"]


class UnsupportedNameError(UnsupportedError, AttributeError):
    """A name of TensorRT that has no meaning here; hasattr() is False for it."""


def unsupported(what: str, why: str) -> UnsupportedError:
    """The error for a setting of TensorRT that cannot have its meaning here."""
    return UnsupportedError(f"tandem.tensorrt: {what} is not supported: {why}")


class Closed:
    """A class that has no other attributes than those it names: setting or reading another is an error that says so."""

    # Names of TensorRT that are missing for a reason, with the reason.
    _missing: dict[str, str] = {}

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise self._no(name)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> object:
        raise self._no(name)

    def _no(self, name: str) -> UnsupportedNameError:
        reason = next(
            (vars(kind)["_missing"][name] for kind in type(self).__mro__ if name in vars(kind).get("_missing", {})),
            "there is nothing like it here",
        )
        return UnsupportedNameError(f"tandem.tensorrt: {type(self).__name__}.{name} is not supported: {reason}")
