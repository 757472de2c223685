"""The documentation's blocks of code, run in the order of its pages, with tiny models in place of real ones."""

import csv
import random
import subprocess
import sys

import pytest

from minidisc.cli.main import main
from tests.documentation import blocks, pages
from tests.integration import test_language_model, tiny


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of somebody who follows the pages: the files that they name."""
    tiny.write_rows(tmp_path, train=80)
    (tmp_path / "validation.csv").rename(tmp_path / "dev.csv")
    for name in ("train", "dev"):
        rows = list(csv.reader((tmp_path / f"{name}.csv").open(encoding="utf-8")))[1:]
        with (tmp_path / {"train": "pairs.csv", "dev": "pairs-dev.csv"}[name]).open("w", encoding="utf-8") as file:
            pairs = [[text[:20], text[20:], label] for text, label in rows]
            csv.writer(file).writerows([["premise", "hypothesis", "label"], *pairs])
        tagged = [[f"{w} {'B-MOOD' if w in tiny.GOOD else 'O'}" for w in text.split()] for text, _ in rows]
        (tmp_path / f"{name}.conll").write_text("\n\n".join("\n".join(lines) for lines in tagged))
        documents = [test_language_model.document(random.Random(number)) for number in range(120)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(documents))
    backbone = tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2"
    tiny.backbone(max_position_embeddings=128).save_pretrained(backbone)
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(backbone)
    test_language_model.write_backbone(tmp_path / "story-model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_blocks_run(reader):
    ran = 0
    for page in pages()[:-1]:
        names: dict = {}
        for block in blocks(page):
            if block.not_run or block.language not in ("bash", "python") or page.name == "adding-a-family.md":
                continue  # that page's are run by tests/unit/test_added_family.py
            print(f"--- {page.name}\n{block.text}")
            if block.language == "python":
                exec(compile(block.text, page.name, "exec"), names)
            else:
                for program, *words in block.commands():
                    if program == "minidisc":
                        main(words)
                    else:
                        assert program == "python"
                        subprocess.run([sys.executable, *words], check=True)
            ran += 1
    assert ran
