"""Texts as hashed words and marks: what edit ratios and shingles are made of.

A token is a run of word characters (`\\w+`), or any other single character that is not white space; scripts that put
no space between words give one token a character. Hashes are polynomials over code points under keys of our own, so
that a stored signature means the same under every version of every library. Texts are taken apart
as one array of code points, which is several times faster than a regular expression that makes strings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_SPACE, _MARK, _WORD, _ALONE = range(4)  # kinds of character; _ALONE is a word of one character
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_CHUNK = 1 << 18  # code points taken apart at once: their arrays stay in the processor's cache


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
        offsets = offsets_of(counts)
        places = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)


@dataclass(frozen=True)
class Tokens:
    """Every token of every text, in order: `exact` tells apart what `folded` (lower case) does not."""

    exact: U64
    folded: U64
    spoken: npt.NDArray[np.bool_]  # a word, not a mark
    offsets: I64  # row i is [offsets[i], offsets[i + 1])

    def words(self) -> Ragged:
        """The lower-case words alone."""
        before = np.concatenate([[0], self.spoken.cumsum()])
        return Ragged(self.folded[self.spoken], before[self.offsets])


@dataclass(frozen=True)
class _Characters:
    kind: npt.NDArray[np.uint8]
    key: U64  # of the lower-case form; 0 for white space
    upper: npt.NDArray[np.bool_]


def tokens(texts: pl.Series) -> Tokens:
    """Take every text apart; a null is an empty text."""
    strings = texts.fill_null("").to_list()
    parts = [_take_apart(chunk) for chunk in _chunks(strings)]
    if not parts:
        return Tokens(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.bool_), np.zeros(1, np.int64))
    exact, folded, spoken, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Tokens(exact, folded, spoken, offsets_of(counts))


def offsets_of(counts: npt.NDArray[np.integer]) -> I64:
    """Where each row begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def mix(values: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), over arrays; wraps by design."""
    values = values + np.uint64(_BASE)
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _chunks(strings: list[str]) -> Iterator[list[str]]:
    start, size = 0, 0
    for stop, text in enumerate(strings):
        if size >= _CHUNK:
            yield strings[start:stop]
            start, size = stop, 0
        size += len(text) + 1
    if start < len(strings):
        yield strings[start:]


def _take_apart(strings: list[str]) -> tuple[U64, U64, npt.NDArray[np.bool_], I64]:
    """exact, folded, spoken, and the tokens per text."""
    table = _characters()
    points = np.frombuffer(("\n".join(strings) + "\n").encode("utf-32-le", "surrogatepass"), "<u4")
    kind = table.kind[points]
    word = kind == _WORD
    alone = (kind == _MARK) | (kind == _ALONE)
    edge = np.diff(word, prepend=False)  # true where a word begins and where it has ended; the last character is "\n"
    starts = np.flatnonzero((edge & word) | alone)
    ends = np.flatnonzero(np.concatenate([edge[1:] & word[:-1], [False]]) | alone)
    powers, inverses = _powers(len(points))
    sums = np.cumsum(table.key[points] * powers[: len(points)], dtype=np.uint64)
    before = np.where(starts > 0, sums[starts - 1], np.uint64(0))
    folded = mix((sums[ends] - before) * inverses[starts])
    capitals = np.cumsum(table.upper[points], dtype=np.uint32)
    inside = capitals[ends] - np.where(starts > 0, capitals[starts - 1], np.uint32(0))
    exact = folded + inside.astype(np.uint64)
    borders = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)) + 1)
    counts = np.diff(np.searchsorted(starts, borders), prepend=0)
    return exact, folded, kind[starts] != _MARK, counts


@cache
def _characters() -> _Characters:
    """What kind every code point is, with a key for its lower-case form."""
    size = 0x110000
    code = np.arange(size)
    valid = (code < 0xD800) | (code > 0xDFFF)
    signs = pl.Series([chr(point) for point in code[valid]])
    kind = np.full(size, _MARK, np.uint8)
    kind[valid] = np.select(
        [
            signs.str.contains(r"\s").to_numpy(),
            signs.str.contains(_UNSPACED).to_numpy() & signs.str.contains(r"\w").to_numpy(),
            signs.str.contains(r"\w").to_numpy(),
        ],
        [_SPACE, _ALONE, _WORD],
        default=_MARK,
    )
    lower = code.copy()
    folded = signs.str.to_lowercase()
    single = (folded.str.len_chars() == 1).to_numpy() & (folded != signs).to_numpy()
    lower[code[valid][single]] = [ord(sign) for sign in folded.filter(pl.Series(single))]
    key = mix(lower.astype(np.uint64))
    key[kind == _SPACE] = 0
    return _Characters(kind, key, lower != code)


_grown: list[tuple[U64, U64]] = []


def _powers(length: int) -> tuple[U64, U64]:
    """Powers of the base and of its inverse, at least `length` of each."""
    if not _grown or len(_grown[-1][0]) < length:
        size = max(2 * _CHUNK, length)
        inverse = pow(_BASE, -1, 1 << 64)
        both = []
        for base in (_BASE, inverse):
            steps = np.full(size, base, np.uint64)
            steps[0] = 1
            both.append(np.cumprod(steps, dtype=np.uint64))
        _grown.append((both[0], both[1]))
    return _grown[-1]
