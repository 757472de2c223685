"""Who is told what a run does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from minidisc.preflight import Estimate

_logger = logging.getLogger("minidisc")


class Listener(Protocol):
    """Told what a run does; the command line prints it."""

    def note(self, message: str) -> None:
        """Something worth a line."""

    def warn(self, message: str) -> None:
        """Something the user should look at."""

    def estimated(self, value: Estimate) -> None:
        """What the run will take, before it starts."""

    def stage(self, name: str) -> Callable[..., None]:
        """A training stage begins; returns its progress callback (see `ResumableTrainer`)."""

    def cell(self, title: str, number: int, of: int, seconds_left: float | None) -> None:
        """A cell of a comparison begins."""


class LoggingListener:
    """The listener of Python callers: notes and warnings go to the logger ``minidisc``."""

    def note(self, message: str) -> None:
        """Log at level INFO."""
        _logger.info(message)

    def warn(self, message: str) -> None:
        """Log at level WARNING."""
        _logger.warning(message)

    def estimated(self, value: Estimate) -> None:
        """Log at level INFO."""
        _logger.info("estimate: %.0f s, %d bytes of memory, %d bytes of disk", value.seconds, value.memory, value.disk)

    def cell(self, title: str, number: int, of: int, seconds_left: float | None) -> None:
        """Log at level INFO."""
        _logger.info("cell %d of %d: %s", number, of, title)

    def stage(self, name: str) -> Callable[..., None]:
        """Log every evaluation at level INFO."""

        def progress(step: int, total: int, loss: Any, metrics: dict[str, float] | None) -> None:
            if metrics is not None:
                _logger.info("%s step %d of %d: %s", name, step, total, metrics)

        return progress
