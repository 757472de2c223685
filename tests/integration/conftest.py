import pytest

from tests.integration import tiny


@pytest.fixture(scope="module", autouse=True)
def brief_end(request):
    """See `tests.integration.tiny.end_briefly`; test_report.py and tests/unit/report draw the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.end_briefly(patch.setattr, pictures=request.module.__name__.endswith("test_report"))
        yield


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with a tiny fine-tuned teacher and rows of text; nothing may change it."""
    folder = tmp_path_factory.mktemp("workplace")
    tiny.write_rows(folder)
    tiny.write_teacher(folder)
    return folder
