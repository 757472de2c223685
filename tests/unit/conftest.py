import gc
import os

# Tiny matrices on many threads are ten times slower; must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

# The same examples in every run, and no time limit for one: a shared machine is slow now and then.
settings.register_profile("minidisc", deadline=None, derandomize=True)
settings.load_profile("minidisc")


def pytest_generate_tests(metafunc):
    """A test that takes ``family`` runs once for every row of the matrix, with ``attention`` for each that it has."""
    if "family" in metafunc.fixturenames:
        import pytest

        from tests.unit.families import MATRIX

        if "attention" in metafunc.fixturenames:
            pairs = [pytest.param(row, kind, id=f"{row.name}-{kind}") for row in MATRIX for kind in row.attentions]
            metafunc.parametrize(("family", "attention"), pairs)
        else:
            metafunc.parametrize("family", [pytest.param(row, id=row.name) for row in MATRIX])


def pytest_collection_finish():
    """The trainer collects garbage after every training: 0.3 s each, if it had to go through all imported modules."""
    gc.freeze()
