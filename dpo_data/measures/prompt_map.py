"""Where a comparison's prompt lies on a plane, for plots: the first two principal components of the prompts' vectors.

`x` and `y` are for the eye: no rule reads them, no decision and no version id depends on them. Prompts that ask the
same lie on one point, and near points ask about like things; the two axes mean nothing by themselves.
The plane is fitted again for each ledger, so a point may move a little from version to version.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dpo_data.text import embeddings

Floats = NDArray[np.float64]

_FITTED = 20_000
"""Prompts that the axes are found on: those with the smallest hashes, so a random sample that no file order changes."""
_DIGITS = 3
"""Of a coordinate in [-2, 2]: a plot shows no more, and the last bits of a vector depend on its batch mates."""


def measure(ledger: pl.DataFrame, store: Path, model: str) -> pl.DataFrame:
    """Add `x` and `y` to a ledger that has `topic_hash`; null where the prompt was not embedded.

    The vectors are read from the cache shard by shard, twice: a million prompts take no more memory than their hashes.
    """
    wanted = ledger["topic_hash"].drop_nulls().unique().sort()
    chosen = [*embeddings.parts(wanted.head(_FITTED), store, model)]
    points = [pl.DataFrame(schema={"topic_hash": pl.String, "x": pl.Float64, "y": pl.Float64})]
    if chosen:
        fitted = pl.concat(chosen).unique("hash", keep="first", maintain_order=True).sort("hash")
        centre, axes = fit(fitted["vector"].to_numpy().astype(np.float64))
        for part in embeddings.parts(wanted, store, model):
            x, y = project(part["vector"].to_numpy().astype(np.float64), centre, axes).T
            points.append(pl.DataFrame({"topic_hash": part["hash"], "x": x, "y": y}))
    places = pl.concat(points).unique("topic_hash", keep="first", maintain_order=True)
    return ledger.drop("x", "y", strict=False).join(places, on="topic_hash", how="left", maintain_order="left")


def fit(vectors: Floats) -> tuple[Floats, Floats]:
    """Centre (width,) and the two directions of most variance (2, width) of `vectors` (rows, width).

    A direction is known up to its sign; here its largest entry is positive.
    """
    centre = vectors.mean(axis=0)
    moved = vectors - centre
    axes = np.linalg.eigh(moved.T @ moved)[1][:, :-3:-1].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return centre, axes * np.sign(largest)


def project(vectors: Floats, centre: Floats, axes: Floats) -> Floats:
    """Coordinates (rows, 2), rounded."""
    return np.asarray(np.round((vectors - centre) @ axes.T, _DIGITS) + 0.0)  # no -0.0
