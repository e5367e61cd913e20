"""What the prompts are about, as one more axis: clusters of prompts by their words, named by the words that mark them.

TF-IDF, its leading directions, and spherical k-means from fixed seeds, written out since a training box has no
scikit-learn. Topics are found in the prompts a run watched; `assign` carries them to any others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dpo_train.data.axes import Columns
from dpo_train.statistics import Floats, Ints

TOPIC = "prompt topic"  # the axis; no column of the shards
FEWEST_PROMPTS, PER_TOPIC, MOST_TOPICS = 80, 40, 12  # so that a topic has prompts enough to be judged
MOST_TERMS, MOST_FITTED, ROUNDS, STARTS = 2000, 4000, 50, 10
NAMED_BY = 3  # words
COMMON = 0.15  # a word in more prompts than this says how people ask, not what about
NO_TOPIC = "none of these"
_WORD = re.compile(r"[^\W\d_]{4,}")
_ROLES = {"user", "assistant", "system"}  # as pairs.parquet writes conversations


class Topics(NamedTuple):
    """Terms with their weights, the directions prompts differ in, and a centre and a name for each topic."""

    terms: dict[str, int]
    rarity: Floats  # (terms,)
    plane: Floats  # (terms, directions)
    centres: Floats  # (topics, directions)
    names: list[str]


def words_of(prompt: Any) -> list[str]:
    """Lower-case words of four letters and more; a message list is read as its contents."""
    if isinstance(prompt, list):
        prompt = " ".join(str(message.get("content", "")) for message in prompt)
    return [word for word in _WORD.findall(str(prompt or "").lower()) if word not in _ROLES]


def find(prompts: Sequence[Any]) -> Topics | None:
    """Topics of distinct prompts; None where they are too few or share no words."""
    distinct = sorted({" ".join(words_of(prompt)) for prompt in prompts})
    if len(distinct) < FEWEST_PROMPTS:
        return None
    picked = np.linspace(0, len(distinct) - 1, min(len(distinct), MOST_FITTED)).round().astype(int)
    read = [distinct[place].split() for place in picked]
    seen = Counter(word for words in read for word in set(words))
    known = [(-count, word) for word, count in seen.items() if 3 <= count <= COMMON * len(read)]
    terms = {word: place for place, (_, word) in enumerate(sorted(known)[:MOST_TERMS])}
    rarity = np.array([np.log(len(read) / seen[word]) for word in terms])
    vectors = _vectors(read, terms, rarity)
    vectors = vectors[np.linalg.norm(vectors, axis=1) > 0]
    if len(vectors) < FEWEST_PROMPTS:
        return None
    count = min(MOST_TOPICS, len(vectors) // PER_TOPIC)
    plane = _plane(vectors, 2 * count)
    centres = _clusters(_unit(vectors @ plane), count)
    owners = (vectors @ plane @ centres.T).argmax(axis=1)
    return Topics(terms, rarity, plane, centres, _names(vectors, owners, list(terms), count))


def _names(vectors: Floats, owners: Ints, terms: Sequence[str], count: int) -> list[str]:
    """The words that a topic's prompts have more often than the others', most telling first."""
    names = []
    for k in range(count):
        inside = owners == k
        lead = vectors[inside].mean(axis=0) - vectors[~inside].mean(axis=0) if inside.any() else vectors.mean(axis=0)
        names.append(", ".join(terms[place] for place in np.argsort(-lead, kind="stable")[:NAMED_BY]))
    return names


def assign(topics: Topics, prompts: Sequence[Any]) -> list[str]:
    """The name of each prompt's nearest topic; `NO_TOPIC` where it shares no word with any."""
    found = []
    for start in range(0, len(prompts), 1000):
        part = [words_of(prompt) for prompt in prompts[start : start + 1000]]
        near = _vectors(part, topics.terms, topics.rarity) @ topics.plane @ topics.centres.T
        best = near.argmax(axis=1)
        found += [topics.names[k] if near[row, k] > 0 else NO_TOPIC for row, k in enumerate(best)]
    return found


def with_topics(pairs: pa.Table) -> pa.Table:
    """The table with a column `TOPIC`, or as it is where no topics are found in its prompts."""
    prompts = pairs["prompt"].to_pylist() if "prompt" in pairs.column_names else []
    topics = find(prompts)
    return pairs if topics is None else pairs.append_column(TOPIC, pa.array(assign(topics, prompts), pa.string()))


def no_topics(columns: Columns) -> dict[str, str]:
    """The axis with the reason in words, where there is none."""
    return {} if TOPIC in columns else {TOPIC: f"under {FEWEST_PROMPTS} different prompts that share words"}


def _vectors(read: Sequence[Sequence[str]], terms: dict[str, int], rarity: Floats) -> Floats:
    """Unit vectors (prompts, terms); a prompt without a known term stays 0."""
    rows = np.zeros((len(read), len(terms)))
    for row, words in enumerate(read):
        for word in set(words) & terms.keys():
            rows[row, terms[word]] = rarity[terms[word]]
    return _unit(rows)


def _plane(vectors: Floats, width: int) -> Floats:
    """The directions (terms, width) in which prompts differ most: words that come together count as one."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    return np.asarray(directions[:, ::-1][:, :width], dtype=np.float64)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _clusters(rows: Floats, count: int) -> Floats:
    """Centres of the tightest of `STARTS` spherical k-means, each begun by k-means++ (Arthur & Vassilvitskii 2007)."""
    best, tightest = rows[:count], -np.inf
    for start in range(STARTS):
        generator = np.random.default_rng(start)
        places = [int(generator.integers(len(rows)))]
        while len(places) < count:
            far = np.maximum(1 - (rows @ rows[places].T).max(axis=1), 0) + 1e-12
            places.append(int(generator.choice(len(rows), p=far / far.sum())))
        centres = rows[places]
        for _ in range(ROUNDS):
            owners = (rows @ centres.T).argmax(axis=1)
            sums = np.stack(
                [rows[owners == k].sum(axis=0) if (owners == k).any() else centres[k] for k in range(count)]
            )
            moved = _unit(sums)
            if np.allclose(moved, centres, atol=1e-12):
                break
            centres = moved
        close = float((rows @ centres.T).max(axis=1).sum())
        if close > tightest + 1e-9:
            best, tightest = centres, close
    return best
