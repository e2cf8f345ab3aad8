"""IProgressMonitor: hears how far a build is, and may end it."""

from __future__ import annotations

from ..errors import StoppedError

__all__ = ["IProgressMonitor"]

STEPS = 100  # of a phase: per cent


class IProgressMonitor:
    """Derive from it and override its three methods; a build calls them from the thread that builds."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins, of `num_steps` steps. Phases here have no parents."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Step `step` is done; False ends the build, which then raises StoppedError."""
        return True

    def phase_finish(self, phase_name: str) -> None:
        """A phase has ended."""


class Phases:
    """tandem's progress callback, as calls of a monitor."""

    def __init__(self, monitor: IProgressMonitor) -> None:
        self._monitor = monitor
        self._phase: str | None = None
        self._step = -1

    def __call__(self, what: str, done: float) -> None:
        if what != self._phase:
            self.finish()
            self._phase, self._step = what, -1
            self._monitor.phase_start(what, None, STEPS)
        step = min(STEPS - 1, int(done * STEPS))
        if step > self._step:
            self._step = step
            if not self._monitor.step_complete(what, step):
                raise StoppedError("the progress monitor ended the build")

    def finish(self) -> None:
        """Ends the phase that is under way."""
        if self._phase is not None:
            self._monitor.phase_finish(self._phase)
        self._phase = None
