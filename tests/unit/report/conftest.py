import pytest

from minidisc.report import content


@pytest.fixture
def no_plots(monkeypatch):
    for name in ("candidates_plot", "curves_plot"):
        monkeypatch.setattr(content, name, lambda *_: "")
    monkeypatch.setattr(content, "fronts", lambda *_: [])
