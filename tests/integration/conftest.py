import pytest

from minidisc import timings
from minidisc.report import plots
from tests.integration import tiny


@pytest.fixture(scope="module", autouse=True)
def brief_end(request):
    """What takes a third of a tiny run: its networks are timed three times, and its report is without pictures.

    test_report.py and tests/unit/report draw them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timings, "BRIEF_ROUNDS", 3)
        if not request.module.__name__.endswith("test_report"):
            patch.setattr(plots, "_svg", lambda name, *_, **__: f'<svg id="{name}"></svg>')
        yield


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with a tiny fine-tuned teacher and rows of text; nothing may change it."""
    folder = tmp_path_factory.mktemp("workplace")
    tiny.write_rows(folder)
    tiny.write_teacher(folder)
    return folder
