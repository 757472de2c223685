"""`minidisc report` on real runs."""

import json
import shutil

import pytest

import minidisc
from minidisc.cli.main import main
from minidisc.tasks import read_table
from tests.integration import fresh, tiny


@pytest.fixture(scope="module")
def runs(workplace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("one", {}), ("two", {"seed": 1, "examples": False})):
        minidisc.compress(
            **tiny.settings(workplace, folder / name, schedule="direct", max_steps=1, target_sparsity=0.97, **changes)
        )
    return folder


def test_a_report_is_rebuilt_as_it_was(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "one", tmp_path / "run")
    # Of a copy, whose models are its own.
    before = (run / "report.html").read_text().replace(str(runs / "one" / "student"), str(run / "student"))
    (run / "report.html").unlink()
    main(["report", str(run)])
    assert capsys.readouterr().out.strip().endswith("report.html")
    assert (run / "report.html").read_text() == before
    main(["report", str(run), "--output", str(tmp_path / "other.html"), "--no-examples"])
    text = (tmp_path / "other.html").read_text()
    examples = json.loads((run / "results.json").read_text())["contrast"]["examples"]
    assert examples
    assert all(example["text"] in before and example["text"] not in text for example in examples)


def test_a_report_comes_without_heavy_imports(runs, tmp_path):
    script = """
import json, sys
sys.argv[0] = "minidisc"
from minidisc.cli.main import main
one, two, page = sys.argv[1:]
main(["report", one, "--output", page])
main(["report", one, two, "--output", page])
print(json.dumps(list(sys.modules)))
"""
    imported = set(fresh.run(script, tmp_path, runs / "one", runs / "two", tmp_path / "page.html"))
    assert "minidisc.report.content" in imported
    assert not imported & {"torch", "transformers", "datasets", "pandas", "scipy", "sklearn"}


def test_no_text_is_kept_if_not_wanted(runs, workplace):
    texts = read_table(workplace / "validation.csv")["text"]
    found = {name: (runs / name / "results.json").read_text() for name in ("one", "two")}
    assert any(text in found["one"] for text in texts)
    for file in (runs / "two").rglob("*"):
        if file.suffix in (".json", ".html", ".md", ".yaml"):
            content = file.read_text()
            assert not any(text in content for text in texts), file


def test_confusions_are_those_of_the_reported_accuracy(runs):
    results = json.loads((runs / "one" / "results.json").read_text())
    for role in ("teacher", "student"):
        matrix = results["contrast"][role]
        right = sum(matrix[i][i] for i in range(len(matrix)))
        assert sum(map(sum, matrix)) == 60
        assert right / 60 == pytest.approx(results[role]["metrics"]["accuracy"])


def test_several_runs_on_one_page(runs, tmp_path, capsys):
    main(["report", str(runs / "one"), str(runs / "two"), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text()
    assert str(runs / "one") in text
    assert str(runs / "two") in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no finished run"),
        (["{one}", "{two}"], "--output"),
        (["{one}", "{one}/../one", "--output", "page.html"], "twice"),
        (["{one}", "--output", "{two}"], "is a folder"),
        ([], "RUN"),
    ],
)
def test_what_cannot_be_reported_is_refused(runs, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["report", *(a.format(one=runs / "one", two=runs / "two") for a in arguments)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("minidisc: ")
    assert error.count("\n") == 1
    assert words in error
    assert not list(tmp_path.iterdir())
