"""Near-duplicate texts: shingles, MinHash signatures, bands, exact Jaccard, clusters.

Two texts are near when the Jaccard index of their sets of word 3-grams (tokens `\\w+`, lower case; a shorter text
is one shingle) passes a limit. Signatures only propose; every proposal is verified on the exact sets, so a
false positive of the sketch never reaches the ledger. Nothing here loops over texts in Python.
"""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import rensa
from scipy import sparse
from scipy.sparse import csgraph

from dpo_data.executor import Executor, Inline
from dpo_data.text import minhash
from dpo_data.text.token_hashes import I64, Ragged, mix, offsets_of

METHOD = f"near 1, rensa {version('rensa')}"  # raise it when the same text would be signed or compared otherwise
SHINGLE = 3
BAND_ROWS = 4
BANDS = 20
# P(candidate) = 1 - (1 - J^4)^20: .996 at J = .7, .99997 at .8 (Mining of Massive Datasets, 3.4.2).
PERMUTATIONS = BAND_ROWS * BANDS
_SEED = 42
# A bucket with more members than this is linked to its smallest member and along its sorted row instead of all to all.
_BUCKET = 64
_KEYS = 16_000_000  # band keys sorted at once: 256 MB


def shingles(words: Ragged, size: int = SHINGLE) -> Ragged:
    """Hashes of every run of `size` words; a text with fewer words (but some) is one shingle."""
    counts = np.diff(words.offsets)
    total = len(words.values)
    padded = np.concatenate([words.values, np.zeros(size - 1, np.uint64)])
    window = np.zeros(total, np.uint64)
    for step in range(size):
        window = mix(window) + padded[step : step + total] if step else padded[:total].copy()
    # A window is whole unless it begins in the last places of its text.
    whole = np.ones(total, np.bool_)
    for back in range(1, size):
        at = words.offsets[1:] - back
        whole[at[at >= words.offsets[:-1]]] = False
    few = np.flatnonzero((counts > 0) & (counts < size))
    for count in range(1, size):
        at = words.offsets[few[counts[few] == count]]
        folded = padded[at].copy()
        for step in range(1, size):
            folded = mix(folded) + (padded[at + step] if step < count else np.uint64(0))
        window[at] = folded
        whole[at] = True
    made = np.where(counts == 0, 0, np.maximum(counts - size + 1, 1))
    return Ragged(mix(window[whole]), offsets_of(made))


def join(*parts: Ragged) -> Ragged:
    """Row-wise concatenation: the shingles of a comparison are those of its parts, none across a border."""
    counts = [np.diff(part.offsets) for part in parts]
    offsets = offsets_of(np.sum(counts, axis=0))
    values = np.empty(offsets[-1], np.uint64)
    start = offsets[:-1].copy()
    for part, count in zip(parts, counts, strict=True):
        target = np.repeat(start - part.offsets[:-1], count) + np.arange(len(part.values))
        values[target] = part.values
        start += count
    return Ragged(values, offsets)


def sign(rows: Ragged) -> pl.Series:
    """MinHash signature of every row as little-endian u32 bytes (Binary); null for a row without shingles."""
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        rows.values, rows.offsets.astype(np.uint64), PERMUTATIONS, _SEED
    )
    digests = np.array(matrix.to_rows(), dtype="<u4").reshape(len(rows), PERMUTATIONS)
    width = PERMUTATIONS * 4
    borders = np.arange(0, (len(rows) + 1) * width, width, dtype=np.int64)
    column = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(rows), [None, pa.py_buffer(borders), pa.py_buffer(digests.tobytes())]
    )
    series = pl.Series("signature", pl.from_arrow(column))
    empty = pl.Series(np.diff(rows.offsets) == 0)
    return series.zip_with(~empty, pl.Series("signature", [None], dtype=pl.Binary).new_from_index(0, len(rows)))


def unpack(signatures: pl.Series) -> npt.NDArray[np.uint32]:
    """Signatures as a matrix (rows, PERMUTATIONS); no null may be among them."""
    column = signatures.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, borders, content = column.buffers()
    if content is None or not len(column):
        return np.empty((0, PERMUTATIONS), np.uint32)
    first = int(np.frombuffer(borders, np.int64, 1, offset=8 * column.offset)[0])
    size = len(column) * PERMUTATIONS
    return np.frombuffer(content, "<u4", size, offset=first).reshape(len(column), PERMUTATIONS)


def candidates(signatures: pl.Series, executor: Executor | None = None) -> tuple[I64, I64]:
    """Row pairs (left < right) that share a whole band of their signatures, each once, sorted.

    Rows must come in an order of their own (by id): the answer then depends on nothing else. Bands are shared out.
    """
    matrix = unpack(signatures)
    keys = np.empty((BANDS, len(matrix)), np.uint64)
    for band in range(BANDS):
        keys[band] = np.uint64(band)
        for column in matrix[:, band * BAND_ROWS : (band + 1) * BAND_ROWS].T:
            keys[band] = mix(keys[band] ^ column.astype(np.uint64))
    step = max(1, _KEYS // max(len(matrix), 1))
    parts = (keys[start : start + step] for start in range(0, BANDS, step))
    found = pl.concat((executor or Inline()).map(_band_links, parts)).unique().sort("left", "right")
    return found["left"].to_numpy(), found["right"].to_numpy()


def _band_links(keys: npt.NDArray[np.uint64]) -> pl.DataFrame:
    """`keys`: (bands, rows)."""
    rows = np.arange(keys.shape[1], dtype=np.int64)
    return _bucket_links(pl.DataFrame({"key": keys.ravel(), "row": np.tile(rows, len(keys))}))


def _bucket_links(keyed: pl.DataFrame) -> pl.DataFrame:
    crowd = keyed.filter(pl.col("key").is_duplicated()).with_columns(size=pl.len().over("key"))
    small = crowd.filter(pl.col("size") <= _BUCKET).select("key", left="row")
    links = small.join(small.rename({"left": "right"}), on="key").filter(pl.col("left") < pl.col("right"))
    large = crowd.filter(pl.col("size") > _BUCKET).sort("key", "row")
    star = large.select("key", right="row", left=pl.col("row").min().over("key"))
    chain = large.select("key", right="row", left=pl.col("row").shift(1).over("key"))
    rest = pl.concat([star, chain]).filter(pl.col("left") < pl.col("right"))
    return pl.concat([links.select("left", "right"), rest.select("left", "right")])


def incidence(rows: Ragged) -> sparse.csr_matrix:
    """The 0/1 matrix texts × shingles. A shingle's column is its hash: what is stored is only what is there."""
    columns = (rows.values >> np.uint64(2)).astype(np.int64)
    matrix = sparse.csr_matrix((len(rows), 1 << 62), dtype=np.int32)
    matrix.data, matrix.indices, matrix.indptr = np.ones(len(columns), np.int32), columns, rows.offsets
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def jaccard(matrix: sparse.csr_matrix, left: I64, right: I64, block: int = 8192) -> npt.NDArray[np.float64]:
    """Exact Jaccard index of the rows `left[k]` and `right[k]`; two empty rows count as equal (1)."""
    sizes = np.diff(matrix.indptr)
    shared = np.empty(len(left), np.float64)
    for start in range(0, len(left), block):
        stop = start + block
        shared[start:stop] = matrix[left[start:stop]].multiply(matrix[right[start:stop]]).sum(axis=1).A1
    union = sizes[left] + sizes[right] - shared
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def components(count: int, left: Sequence[int] | I64, right: Sequence[int] | I64) -> I64:
    """For each of `count` rows the smallest row it is connected with (itself where alone)."""
    graph = sparse.coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, label = csgraph.connected_components(graph, directed=False)
    smallest = np.full(label.max() + 1 if count else 0, count, np.int64)
    np.minimum.at(smallest, label, np.arange(count, dtype=np.int64))
    return np.asarray(smallest[label], np.int64)


def sign_comparisons(prompt: Ragged, response_a: Ragged, response_b: Ragged) -> pl.Series:
    """One MinHash per comparison over the shingles of its three parts: the order of the sides does not matter."""
    return minhash.sign(minhash.join(prompt, response_a, response_b))
