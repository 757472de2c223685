import pytest

from tests.integration import tiny

# Where somebody looks at what a run is said to take, or took.
MEASURED = ("test_bad_input", "test_commands", "test_docs", "test_preflight", "test_report")


@pytest.fixture(scope="module", autouse=True)
def brief_end(request):
    """See `tests.integration.tiny.end_briefly`; test_report.py and tests/unit/report draw the pictures."""
    module = request.module.__name__.rpartition(".")[2]
    with pytest.MonkeyPatch.context() as patch:
        tiny.end_briefly(patch.setattr, pictures=module == "test_report", measured=module in MEASURED)
        yield


@pytest.fixture
def measured(monkeypatch):
    """Runs that are measured, in a module where others are not."""
    tiny.end_briefly(monkeypatch.setattr, measured=True)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with a tiny fine-tuned teacher and rows of text; nothing may change it."""
    folder = tmp_path_factory.mktemp("workplace")
    tiny.write_rows(folder)
    tiny.write_teacher(folder)
    return folder
