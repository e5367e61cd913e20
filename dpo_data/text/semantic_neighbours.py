"""Texts that mean nearly the same: every cosine exactly, block by block, and each pair of texts compared once, ever.

Exact search on purpose: an approximate index finds other neighbours from build to build, and a split or a drop must not
depend on that. In the table of `recall` a text that was compared with all others stands as a pair with
itself, so that one file, replaced at once, says both what is near and what has been looked at.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from dpo_data.text import stamps
from dpo_data.text.embeddings import DIGITS, Embedded, Vectors
from dpo_data.text.token_hashes import I64

F64 = npt.NDArray[np.float64]

METHOD = "neighbours 1"  # raise it when the same vectors would be compared otherwise
_BLOCK = 2048  # rows compared with as many others at once: 16 MB of cosines


def pairs(vectors: Vectors, cosine: float, known: int = 0, block: int = _BLOCK) -> tuple[I64, I64]:
    """All row pairs (left < right) at or above `cosine`, exactly, but those among the first `known` rows.

    `vectors`: (rows, width), of length 1. Cosines are rounded, since a vector's last bits depend on its batch mates.
    """
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(known, len(vectors), block):
        rows = vectors[start : start + block]
        for other in range(0, start + len(rows), block):
            left, right = np.nonzero(np.round(vectors[other : other + block] @ rows.T, DIGITS) >= cosine)
            left, right = left + other, right + start
            lefts.append(left[left < right])
            rights.append(right[left < right])
    return np.concatenate(lefts), np.concatenate(rights)


def nearest(vectors: Vectors, others: Vectors, block: int = _BLOCK) -> tuple[I64, F64]:
    """For each row the nearest of `others` (the first of equals) and its cosine, rounded; both (rows,)."""
    best, cosines = np.zeros(len(vectors), np.int64), np.full(len(vectors), -1.0)
    for start in range(0, len(vectors), block):
        rows = slice(start, start + block)
        for other in range(0, len(others), block):
            found = np.round((vectors[rows] @ others[other : other + block].T).astype(np.float64), DIGITS)
            place = found.argmax(axis=1)
            value = found[np.arange(len(found)), place]
            better = value > cosines[rows]
            best[rows] = np.where(better, place + other, best[rows])
            cosines[rows] = np.where(better, value, cosines[rows])
    return best, cosines


def recall(path: Path, embedded: Embedded, cosine: float) -> tuple[pl.DataFrame, int]:
    """Pairs of text hashes (`left` < `right`) at or above `cosine`, and how many texts were compared just now.

    `path` remembers them, for one model; another limit or method starts from scratch.
    """
    method = f"{METHOD}, cosine {cosine}"
    wanted = embedded.hashes.to_frame("hash")
    known = pl.DataFrame(schema={"left": pl.String, "right": pl.String})
    if stamps.made_by(path, method):  # texts that are gone are left out: should they come back, they are new
        known = pl.read_parquet(path, glob=False).join(wanted, left_on="left", right_on="hash", how="semi")
        known = known.join(wanted, left_on="right", right_on="hash", how="semi")
    seen = known.filter(pl.col("left") == pl.col("right")).select(hash="left")
    new = wanted.join(seen, on="hash", how="anti")["hash"]
    if len(new):
        hashes = pl.concat([seen["hash"], new])
        left, right = pairs(embedded.vectors[embedded.rows(hashes)], cosine, known=len(seen))
        one, two = hashes.gather(left), hashes.gather(right)
        found = pl.DataFrame({"one": one, "two": two}, schema={"one": pl.String, "two": pl.String})
        ends = found.select(left=pl.min_horizontal("one", "two"), right=pl.max_horizontal("one", "two"))
        selves = new.to_frame("left").with_columns(right="left")
        known = pl.concat([known, ends, selves])
        stamps.write(known.sort("left", "right"), path, method)
    return known.filter(pl.col("left") != pl.col("right")).sort("left", "right"), len(new)
