import pytest

from minidisc.comparison.table import markdown, mean_and_error, summarise, with_error


def cell(method, target, seed, accuracy, seconds=10.0, assistants=()):
    return {
        "method": method,
        "target_sparsity": target,
        "seed": seed,
        "metrics": {"accuracy": accuracy, "metric": accuracy},
        "selection_metrics": {"accuracy": 0.5, "metric": 0.5},
        "sizes": {"prunable": 1e6, "without_embeddings": 2e6, "all": 3e6},
        "assistants": [{"sparsity": s, "metrics": {"accuracy": s + 0.1}} for s in assistants],
        "cost": {"steps": 100, "flops": 2e12, "seconds": seconds, "cpu_seconds": 7.0, "peak_memory": 2**30},
        "machine": "m",
    }


CELLS = [
    cell("b", 0.9, 0, 0.70, 10.0, (0.6,)),
    cell("b", 0.9, 1, 0.72, 20.0, (0.7,)),
    cell("b", 0.9, 2, 0.77, 30.0, ()),
    cell("a", 0.95, 0, 0.5),
    cell("a", 0.9, 0, 0.6),
]


def test_mean_and_standard_error_by_hand():
    # Deviations from 0.73: -0.03, -0.01, 0.04; variance 0.0026 / 2; error sqrt(0.0013 / 3).
    mean, error = mean_and_error([0.70, 0.72, 0.77])
    assert mean == pytest.approx(0.73)
    assert error == pytest.approx((0.0013 / 3) ** 0.5)
    assert mean_and_error([0.7]) == (0.7, None)


def test_rows_come_by_target_and_in_the_methods_order():
    rows = summarise(CELLS, ["a", "b"])
    assert [(row["method"], row["target_sparsity"]) for row in rows] == [("a", 0.9), ("b", 0.9), ("a", 0.95)]
    assert rows[1]["seeds"] == [0, 1, 2]
    assert rows[1]["cost"]["seconds"][0] == 20.0
    assert rows[1]["assistants"] == [[0.6], [0.7], []]
    mean, error = rows[1]["assistant_metrics"]["accuracy"]
    assert (mean, error) == (pytest.approx(0.75), pytest.approx(0.05))
    assert rows[0]["assistant_metrics"] == {}


def test_with_error():
    assert with_error((0.81234, 0.0041)) == "0.812 ± 0.004"
    assert with_error((12.3, None), 0) == "12"


def test_the_page_holds_every_figure():
    content = {
        "task": {"name": "glue/x", "metrics": ["accuracy"]},
        "rows": {
            "train": {"count": 90},
            "selection": {"count": 10},
            "validation": {"count": 50, "source": "dev.csv"},
        },
        "teacher": {"metrics": {"accuracy": 0.9}, "sizes": {"prunable": 4e6, "without_embeddings": 5e6, "all": 6e6}},
        "table": summarise(CELLS, ["a", "b"]),
        "cells": CELLS,
        "failures": {"c at 90 %": "it broke"},
        "settings": {"max_steps": 300, "epochs": 5, "batch_size": 16, "learning_rate": 1e-4},
    }
    page = markdown(content)
    assert "Batch 16, learning rate" in page
    content["settings"]["gradient_accumulation_steps"] = 1
    assert markdown(content) == page
    content["settings"]["gradient_accumulation_steps"] = 2
    assert "Batch 16 × 2, learning rate" in markdown(content)
    rows = [[part.strip() for part in line.split("|")] for line in page.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert "0.730 ± 0.021" in page
    assert "60, 70, none" in page
    assert "| its assistant | | 2 | 0.750 ± 0.050 |" in page
    assert "300 steps a stage" in page
    assert "c at 90 %: it broke" in page
    content["rows"]["validation"]["source"] = "<b>.csv"
    content |= {"warnings": ["label b\n# Injected"], "failures": {"c": "![x](https://evil.example)"}}
    page = markdown(content)
    assert "50 rows of &lt;b>.csv, mean" in page
    assert "\n- label b # Injected\n" in page
    assert "\n- c: !\\[x](https://evil.example)\n" in page
