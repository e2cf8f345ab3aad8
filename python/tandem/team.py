"""Team: how ranks are started, for several models that share it."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Literal

from ._core import Engine, Model
from .building import load
from .errors import InvalidArgumentError

__all__ = ["Team"]


class Team:
    """So many ranks, started alike for every model that is loaded into it; a context manager that closes its models.

    Each model has its own threads or processes. A Team is what `tandem.load` makes for one model; its arguments are the same, in seconds
    where they are deadlines.
    """

    def __init__(
        self,
        ranks: int,
        *,
        isolate: Literal["threads", "processes"] = "threads",
        threads: int = 0,
        step_deadline: float = 30.0,
        load_deadline: float = 120.0,
        rendezvous_deadline: float = 60.0,
        drain_deadline: float = 10.0,
        weight_budget: int | None = None,
    ) -> None:
        """`ranks`: how many; the rest as in tandem.load. Raises InvalidArgumentError for fewer than one."""
        if ranks < 1:
            raise InvalidArgumentError(f"a team of {ranks} ranks is none")
        self._ranks = ranks
        self._isolate: Literal["threads", "processes"] = isolate
        self._threads = threads
        self._step_deadline = step_deadline
        self._load_deadline = load_deadline
        self._rendezvous_deadline = rendezvous_deadline
        self._drain_deadline = drain_deadline
        self._weight_budget = weight_budget
        self._models: list[Model] = []
        self._closed = False

    @property
    def ranks(self) -> int:
        """How many ranks every model of it has."""
        return self._ranks

    @property
    def models(self) -> tuple[Model, ...]:
        """The models loaded into it that are not closed."""
        return tuple(model for model in self._models if not model.closed)

    def load(self, model: str | os.PathLike[str] | Engine, *, timed: bool = False, timing_cache: str | os.PathLike[str] = "") -> Model:
        """Starts the ranks of a model, see tandem.load. Raises MismatchError for an engine of another number of ranks."""
        if self._closed:
            raise InvalidArgumentError("the team is closed")
        started = load(
            model,
            ranks=self._ranks,
            timed=timed,
            timing_cache=timing_cache,
            isolate=self._isolate,
            threads=self._threads,
            step_deadline=self._step_deadline,
            load_deadline=self._load_deadline,
            rendezvous_deadline=self._rendezvous_deadline,
            drain_deadline=self._drain_deadline,
            weight_budget=self._weight_budget,
        )
        self._models = [*self.models, started]
        return started

    def close(self) -> None:
        """Closes its models, the last one first. A second close does nothing."""
        self._closed = True
        for model in reversed(self._models):
            model.close()
        self._models = []

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Team({self._ranks} ranks as {self._isolate}, {len(self.models)} models)"
