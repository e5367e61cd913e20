"""Near-duplicate texts: hashed word 3-grams, MinHash signatures, bands, exact Jaccard, clusters.

Two texts are near when the Jaccard index of their sets of word 3-grams (tokens `\\w+`, lower case; a shorter text
is one shingle) passes a limit. Signatures only propose; every proposal is verified on the exact sets, so a
false positive of the sketch never reaches the ledger. Token hashes are xxh3 and the mixing is ours, so that a stored
signature means the same under every version of polars. The surprise: nothing here loops over texts in Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import rensa
import xxhash
from scipy import sparse

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

SHINGLE = 3
BAND_ROWS = 4
BANDS = 20
# P(candidate) = 1 - (1 - J^4)^20: .996 at J = .7, .99997 at .8 (Mining of Massive Datasets, 3.4.2).
PERMUTATIONS = BAND_ROWS * BANDS
_SEED = 42
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TOKEN = rf"[{_UNSPACED}]|[\w--[{_UNSPACED}]]+|[^\w\s]"
# A bucket with more members than this is linked to its smallest member and along its sorted row instead of all to all.
_BUCKET = 64


@dataclass(frozen=True)
class Ragged:
    """Rows of hashes of unequal length: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: U64
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, start: int, stop: int) -> "Ragged":
        """Rows `start` to `stop`, as a table of their own."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, rows: I64) -> "Ragged":
        """The rows named, in that order."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], counts.cumsum()])
        places = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)


@dataclass(frozen=True)
class Tokens:
    """Texts as codes into a list of distinct tokens: row i is `codes[offsets[i]:offsets[i + 1]]`."""

    codes: I64
    offsets: I64
    distinct: list[str]


def tokens(texts: pl.Series) -> Tokens:
    """Words and single marks of every text, in order, case kept; white space only separates.

    Scripts that put no space between words give one token a character.
    """
    found = texts.fill_null("").str.extract_all(_TOKEN)
    offsets = np.concatenate([[0], found.list.len().to_numpy().astype(np.int64).cumsum()])
    encoded = found.explode(empty_as_null=False).to_arrow().dictionary_encode()
    return Tokens(encoded.indices.to_numpy().astype(np.int64), offsets, encoded.dictionary.to_pylist())


def words(texts: Tokens) -> Ragged:
    """Hashes of the lower-case words (`\\w+`) of every text, in order; each distinct token is hashed once."""
    count = len(texts.distinct)
    lower = [token.lower().encode("utf-8", "surrogatepass") for token in texts.distinct]
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(token) for token in lower), np.uint64, count)
    spoken = np.fromiter(
        (token[0].isalnum() or token[0] == "_" or len(token) > 1 for token in texts.distinct), np.bool_, count
    )
    keep = spoken[texts.codes] if count else np.empty(0, np.bool_)
    before = np.concatenate([[0], keep.cumsum()])
    return Ragged(hashes[texts.codes[keep]] if count else np.empty(0, np.uint64), before[texts.offsets])


def shingles(tokens: Ragged, size: int = SHINGLE) -> Ragged:
    """Hashes of every run of `size` tokens; a text with fewer tokens (but some) is one shingle."""
    counts = np.diff(tokens.offsets)
    made = np.where(counts == 0, 0, np.maximum(counts - size + 1, 1))
    offsets = np.concatenate([[0], made.cumsum()])
    starts = np.repeat(tokens.offsets[:-1] - offsets[:-1], made) + np.arange(offsets[-1])
    ends = np.repeat(tokens.offsets[1:], made)
    mixed = np.zeros(len(starts), np.uint64)
    for step in range(size):
        at = starts + step
        inside = at < ends
        token = tokens.values[np.where(inside, at, 0)] if len(tokens.values) else np.empty(0, np.uint64)
        mixed = _mix(mixed ^ np.where(inside, token, np.uint64(0)))
    return Ragged(mixed, offsets)


def _mix(values: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), over arrays; wraps by design."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def join(*parts: Ragged) -> Ragged:
    """Row-wise concatenation: the shingles of a comparison are those of its parts, none across a border."""
    counts = [np.diff(part.offsets) for part in parts]
    offsets = np.concatenate([[0], np.sum(counts, axis=0).cumsum()])
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
    if not len(signatures):
        return np.empty((0, PERMUTATIONS), np.uint32)
    return np.frombuffer(b"".join(signatures.to_list()), dtype="<u4").reshape(len(signatures), PERMUTATIONS)


def candidates(signatures: pl.Series) -> tuple[I64, I64]:
    """Row pairs (left < right) that share a whole band of their signatures, each once, sorted.

    Rows must come in an order of their own (by id): the answer then depends on nothing else.
    """
    matrix = unpack(signatures)
    rows = np.arange(len(matrix), dtype=np.int64)
    links = []
    for band in range(BANDS):
        part = matrix[:, band * BAND_ROWS : (band + 1) * BAND_ROWS].astype(np.uint64)
        key = np.zeros(len(part), np.uint64)
        for column in part.T:
            key = _mix(key ^ column)
        links.append(_bucket_links(pl.DataFrame({"key": key, "row": rows})))
    found = pl.concat(links).unique().sort("left", "right")
    return found["left"].to_numpy(), found["right"].to_numpy()


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
    """The 0/1 matrix texts × distinct shingles."""
    _, codes = np.unique(rows.values, return_inverse=True)
    width = int(codes.max()) + 1 if len(codes) else 1
    matrix = sparse.csr_matrix((np.ones(len(codes), np.int32), codes, rows.offsets), shape=(len(rows), width))
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
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.full(label.max() + 1 if count else 0, count, np.int64)
    np.minimum.at(smallest, label, np.arange(count, dtype=np.int64))
    return np.asarray(smallest[label], np.int64)
