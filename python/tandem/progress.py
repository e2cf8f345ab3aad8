"""How far long work is: a line on an interactive terminal or in a notebook, and messages of the logger "tandem"."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

if TYPE_CHECKING:
    from ._core import Engine

__all__ = ["Progress", "log", "watched"]

_Arguments = ParamSpec("_Arguments")

log = logging.getLogger("tandem")
log.addHandler(logging.NullHandler())

_WIDTH = 24
_PATIENCE = 1.0  # seconds before anything is shown: short work says nothing
_PAUSE = 0.1  # seconds between two pictures


def interactive(stream: TextIO) -> bool:
    """Whether somebody watches `stream`: a terminal, or a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")


class Progress:
    """Shows what is being done and how much of it, on one line that is wiped at the end; a context manager.

    `told`: a function to tell instead (text, 0 to 1); False shows nothing; None shows it if standard error is interactive and the work
    takes more than a second.
    """

    def __init__(self, told: Callable[[str, float], object] | bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._told = told if callable(told) else None
        self._shows = told is True or (told is None and interactive(self._stream))
        self._begin = time.monotonic()
        self._next = self._begin + (0.0 if told is True else _PATIENCE)
        self._length = 0

    @property
    def callback(self) -> Callable[[str, float], object] | None:
        """What to hand to the work; None if nobody wants to know."""
        return self._told or (self._show if self._shows else None)

    def _show(self, what: str, done: float) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        full = int(done * _WIDTH)
        line = f"[{'#' * full}{'.' * (_WIDTH - full)}] {done:4.0%} {what}"[:110]
        self._stream.write("\r" + line.ljust(self._length))
        self._stream.flush()
        self._length = len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._length:
            self._stream.write("\r" + " " * self._length + "\r")
            self._stream.flush()


def watched(build: Callable[_Arguments, Engine]) -> Callable[_Arguments, Engine]:
    """Gives the keyword `progress` of a function that builds engines its meaning, see Progress, and logs what was built and its notices."""

    @wraps(build)
    def run(*args: _Arguments.args, **options: _Arguments.kwargs) -> Engine:
        begin = time.monotonic()
        changed: dict[str, Any] = dict(options)
        with Progress(changed.pop("progress", None)) as progress:
            engine = build(*args, **changed, progress=progress.callback)  # type: ignore[arg-type]
        log.info("built an engine for %d ranks (mesh %s) in %.2f s", engine.ranks, engine.mesh, time.monotonic() - begin)
        for notice in engine.notices:
            log.warning("%s", notice)
        return engine

    return run
