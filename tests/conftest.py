"""What holds for all tests."""

import gc
import multiprocessing
import os

# Before torch is imported: tiny matrices on many threads are ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings

# The same examples in every run, and no time limit for one: a shared machine is slow now and then.
settings.register_profile("minidisc", deadline=None, derandomize=True)
settings.load_profile("minidisc")

# No test takes the power away, and a run waits for the disk dozens of times.
os.fsync = lambda descriptor: None


def pytest_generate_tests(metafunc):
    """A test that takes ``family`` runs once for every row of the matrix, with ``attention`` for each that it has."""
    if "family" in metafunc.fixturenames:
        from tests.unit.families import MATRIX

        if "attention" in metafunc.fixturenames:
            pairs = [pytest.param(row, kind, id=f"{row.name}-{kind}") for row in MATRIX for kind in row.attentions]
            metafunc.parametrize(("family", "attention"), pairs)
        else:
            metafunc.parametrize("family", [pytest.param(row, id=row.name) for row in MATRIX])


def pytest_collection_finish():
    # What torch and transformers have imported by now is never freed. A run collects garbage several times; to look
    # through all of that again took half of a tiny run's time.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def context():
    """Makes processes by a server that has imported everything once.

    A new one then starts in a moment, and without this one's state.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["minidisc.pipeline", "minidisc.trainer", "matplotlib.figure", "tests.integration.tiny"]
    )
    return context


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves():
    """As above, what stays behind: half a million objects of torch's compiler, after exports."""
    yield
    gc.collect()
    gc.freeze()
