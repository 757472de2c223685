"""What is random for the caller of a run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def callers_randomness() -> Iterator[None]:
    """Leave the generators of Python, NumPy and torch as they were: training seeds them, and transformers does too."""
    # Of a GPU that nothing has drawn on yet there is no state that somebody may count on.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    own, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(of_numpy)
