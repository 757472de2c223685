"""The README's table of families, against the code and against transformers' own classes."""

import sys
from pathlib import Path

from minidisc.architectures import FAMILIES

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from family_table import BLOCK, README, table


def test_the_readme_holds_the_table_of_the_code():
    (found,) = BLOCK.findall(README.read_text(encoding="utf-8"))
    assert found == table(), "run 'python docs/family_table.py --write'"


def test_every_family_has_one_line():
    names = [line.split(" | ")[1] for line in table().splitlines()[2:]]
    assert sorted(names) == sorted(f"`{family}`" for family in FAMILIES)
    titles = [line.split(" | ")[0] for line in table().splitlines()[2:]]
    assert len(set(titles)) == len(FAMILIES)


def test_the_tasks_are_those_that_the_family_has_classes_for(family):
    head, _, *lines = [line.strip("| ").split(" | ") for line in table().splitlines()]
    (cells,) = [line for line in lines if line[1] == f"`{family.family}`"]
    row = dict(zip(head, cells, strict=False))
    assert row["sequence classification"] == "yes"
    assert row["token classification"] == ("yes" if family.token_class else "–")
    assert row["causal language modelling"] == ("yes" if family.causal_class else "–")
