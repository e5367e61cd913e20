"""Which language a text is in, by py3langid's model, for many texts at once.

The model is py3langid's own (naive Bayes over byte n-grams found by an automaton, Lui and Baldwin 2012); its loop
over bytes is run here for a whole block of texts together, which gives the same answers many times faster.
Null where it would be a guess: under 20 letters, or below .5 of the probability mass.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

METHOD = f"languages 1, py3langid {version('py3langid')}"  # raise it when the same text would be called otherwise
_CHARACTERS = 400  # enough to tell a language; a longer text only costs
_LETTERS = 20  # py3langid's own test set shows accuracy falling steeply below
_CONFIDENT = 0.5
_BLOCK = 2048
# Written alike, so that a short text is often taken for its sister; a reply in one is no reply in another language.
SISTERS = {"wuu": "zh", "yue": "zh", "nn": "no", "hr": "bs", "sr": "bs", "ms": "id", "ary": "ar", "arz": "ar"}


@dataclass(frozen=True)
class _Model:
    labels: list[str]
    next_state: npt.NDArray[np.int32]  # (states, 256)
    feature: npt.NDArray[np.int32]  # (states,), -1: none
    weights: npt.NDArray[np.float32]  # (features, classes)
    prior: npt.NDArray[np.float32]  # (classes,)
    merge: npt.NDArray[np.float32]  # (classes, labels): several classes can carry one label


@cache
def _model() -> _Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    source = LanguageIdentifier.from_model_file(MODEL_FILE)
    rows = np.array(source.tk_nextmove, dtype=np.int32).reshape(-1, 256)
    labels = source.labels
    merge = np.zeros((len(source.nb_classes), len(labels)), np.float32)
    for place, label in enumerate(source.nb_classes):
        merge[place, labels.index(label)] = 1
    return _Model(
        labels,
        rows[np.array(source.tk_row, dtype=np.int64)],
        np.array(source.tk_output, dtype=np.int32),
        source.nb_ptc.astype(np.float32),
        source.nb_pc.astype(np.float32),
        merge,
    )


def identify(texts: pl.Series) -> pl.Series:
    """The ISO 639 code of every text, null where it cannot be told; equal texts are looked at once."""
    heads = texts.fill_null("").str.slice(0, _CHARACTERS)
    distinct = heads.unique(maintain_order=True)
    lettered = distinct.filter(distinct.str.count_matches(r"\p{L}") >= _LETTERS)
    found: list[str | None] = []
    for start in range(0, len(lettered), _BLOCK):
        found.extend(_identify_block(lettered[start : start + _BLOCK].to_list()))
    known = dict(zip(lettered.to_list(), found, strict=True))
    return heads.replace_strict(known, default=None, return_dtype=pl.String) if known else _nothing(len(texts))


def _nothing(count: int) -> pl.Series:
    return pl.Series([None], dtype=pl.String).new_from_index(0, count)


def _identify_block(texts: list[str]) -> list[str | None]:
    model = _model()
    encoded = [_encode(text) for text in texts]
    lengths = np.array([len(text) for text in encoded])
    width = int(lengths.max())
    letters = np.zeros((len(encoded), width), np.uint8)
    for place, text in enumerate(encoded):
        letters[place, : len(text)] = np.frombuffer(text, np.uint8)
    columns = np.ascontiguousarray(letters.T)
    state = np.zeros(len(encoded), np.int32)
    flat = model.next_state.ravel()
    seen = np.full((width, len(encoded)), -1, np.int32)
    for step in range(width):
        state = flat[(state << 8) + columns[step]]
        seen[step] = model.feature[state]
    seen[np.arange(width)[:, None] >= lengths[None, :]] = -1
    at, row = np.nonzero(seen >= 0)
    counts = sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, seen[at, row])), shape=(len(encoded), len(model.weights))
    )
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    scores = counts @ model.weights + model.prior
    # As py3langid: the temperature sqrt(bytes) keeps the softmax calibrated across lengths.
    scores *= (1 / np.sqrt(np.maximum(lengths, 1)))[:, None].astype(np.float32)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = (scores / scores.sum(axis=1, keepdims=True)) @ model.merge
    best = shares.argmax(axis=1)
    sure = shares[np.arange(len(best)), best] >= _CONFIDENT
    sure &= np.diff(counts.indptr) > 0
    sure &= np.array(model.labels)[best] != "zxx"  # no language: numbers, markup
    labels = [SISTERS.get(label, label) for label in model.labels]
    return [labels[label] if ok else None for label, ok in zip(best.tolist(), sure.tolist(), strict=True)]


def _encode(text: str) -> bytes:
    if text.isupper():
        text = text.lower()
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
