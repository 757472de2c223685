import pytest

from tests.integration import tiny


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with a tiny fine-tuned teacher and rows of text; nothing may change it."""
    folder = tmp_path_factory.mktemp("workplace")
    tiny.write_rows(folder)
    tiny.write_teacher(folder)
    return folder
