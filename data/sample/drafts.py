"""Comparisons of known quality, and the planted faults of raw data: repeats, near copies, broken lines."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

from answers import answer_first, rambling
from languages import german, spanish
from questions import KINDS, Question
from truth import Row

from dpo_data.ids import canonical, comparison_hash, prompt_hash, text_hash

REQUESTS = ["Answer first, please.", "Put the answer in the first line.", "Start with the answer.",
            "The answer first, then the rest.", "Begin with what I asked for."]  # fmt: skip
DESKS = ("north", "south", "east", "west")  # where comparisons are taken in
SWAPPED_DESK = "night"  # the fifth, whose export swaps its two columns: every label comes out the wrong way round
FOLLOW_UPS = ["Thanks! Next: ", "Good to know. And now: ", "Fine. Another one: ", "Right, and one more thing. "]


@dataclass(frozen=True)
class Draft:
    """A comparison with its merit: `better` is in the asked form; `label` says which one the raw data prefers."""

    question: Question
    prompt: list[dict[str, str]]
    better: str
    worse: str
    desk: str = DESKS[0]

    @property
    def flipped(self) -> bool:
        """Whether the raw data prefers the worse one: decided by the desk alone, so no text gives it away."""
        return self.desk == SWAPPED_DESK

    @property
    def chosen(self) -> str:
        return self.worse if self.flipped else self.better

    @property
    def rejected(self) -> str:
        return self.better if self.flipped else self.worse

    @property
    def id(self) -> str:
        prompt = [{"role": m["role"], "content": canonical(m["content"])} for m in self.prompt]
        return comparison_hash(prompt_hash(prompt), text_hash(canonical(self.better)), text_hash(canonical(self.worse)))

    @property
    def words(self) -> int:
        return sum(len(text.split()) for text in (self.prompt[-1]["content"], self.better, self.worse))


class Deck:
    """Deals questions that were never dealt before, and sizes that make length say nothing about merit."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.seen: set[str] = set()
        self._sizes = self._shuffled()

    def _shuffled(self) -> Iterator[tuple[int, int]]:
        while True:
            sizes = [*product(range(3), range(3)), (1, 0), (2, 1)]  # ramblers are wordier at the same size
            self.rng.shuffle(sizes)
            yield from sizes

    def question(self, kinds: Sequence[str]) -> Question:
        """A fresh question of one of the kinds ("german" and "spanish" are kinds here)."""
        makers: dict[str, Callable[[Random], Question]] = {**KINDS, "german": german, "spanish": spanish}
        kind = self.rng.choice(kinds)
        for _ in range(2000):
            question = makers[kind](self.rng)
            if question.prompt not in self.seen:
                self.seen.add(question.prompt)
                return question
        raise RuntimeError(f"no fresh question of the kind {kind} is left; add to its tables")

    def prompt(self, question: Question, turns: int = 1) -> list[dict[str, str]]:
        """The messages of a prompt: with a request for the form now and then, after an earlier exchange if asked."""
        text = question.prompt
        if question.language == "en" and self.rng.random() < 0.3:
            text = f"{text} {self.rng.choice(REQUESTS)}"
        if turns == 1:
            return [{"role": "user", "content": text}]
        earlier = self.question(["facts", "words"])
        return [
            {"role": "user", "content": earlier.prompt},
            {"role": "assistant", "content": answer_first(earlier, 0, self.rng)},
            {"role": "user", "content": self.rng.choice(FOLLOW_UPS) + text},
        ]

    def draft(self, kinds: Sequence[str], turns: int = 1, desk: str | None = None) -> Draft:
        """A comparison of an answer in the asked form with a rambling one; from a sound desk unless told otherwise."""
        question = self.question(kinds)
        good, bad = next(self._sizes)
        return Draft(
            question,
            self.prompt(question, turns),
            answer_first(question, good, self.rng),
            rambling(question, bad, self.rng),
            desk=desk or self.rng.choice(DESKS),
        )


SWAPS = [(" one ", " a person "), (" many ", " lots of "), (" perhaps ", " maybe "), (" begin", " start"),
         (" rather ", " quite "), (" some ", " a few "), (" say ", " claim "), (" would ", " might "),
         (" about ", " on "), (" is ", " remains "), (" the ", " that "), (" a ", " some "), (" of ",
          " out of ")]  # fmt: skip


def reworded(text: str, rng: Random) -> str:
    """The text with one small word changed, so that it is nearly the same."""
    usable = [(old, new) for old, new in SWAPS if old in text]
    if not usable:
        return f"{text} Indeed."
    old, new = rng.choice(usable)
    return text.replace(old, new, 1)


def nearly(draft: Draft, rng: Random) -> Draft:
    """The same comparison with a word or two changed, in the prompt or in the longer response."""
    if rng.random() < 0.4:
        *earlier, last = draft.prompt
        return replace(draft, prompt=[*earlier, {**last, "content": f"Hello! {last['content']}"}])
    if len(draft.better) > len(draft.worse):
        return replace(draft, better=reworded(draft.better, rng))
    return replace(draft, worse=reworded(draft.worse, rng))


def alike(text: str, rng: Random) -> str:
    """The text with a comma, a capital, a full stop or a small word changed: nothing to rest a preference on."""
    ways = [text.replace(" ", ", ", 1), text[0].swapcase() + text[1:], reworded(text, rng)]
    if text.endswith("."):
        ways.append(text.removesuffix("."))
    return rng.choice(ways)


def line(record: dict[str, Any]) -> bytes:
    """One JSON line, UTF-8."""
    return json.dumps(record, ensure_ascii=False).encode()


def broken_lines(good: dict[str, Any], text_key: str) -> list[tuple[str, bytes]]:
    """(kind, line) of every way in which a line can be unreadable, made from a good record."""
    whole = line(good)
    text = json.dumps(good[text_key], ensure_ascii=False).encode()
    end = text.rindex(b'"')
    return [
        ("cut", whole[: len(whole) * 2 // 3]),
        ("not UTF-8", whole.replace(text, text[:end] + b" caf\xe9" + text[end:], 1)),
        ("lone surrogate", whole.replace(text, text[:end] + b" \\ud83d" + text[end:], 1)),
        ("NaN", whole.replace(text, b"NaN", 1)),
        ("not an object", b"[" + text + b"]"),
        ("not JSON", b"-- exported by hand, see the other sheet --"),
        ("field missing", line({key: value for key, value in good.items() if key != text_key})),
    ]


def scatter(rows: list[Row], broken: list[tuple[str, bytes]], rng: Random) -> None:
    """Put the broken lines somewhere among the rows, the cut one at the end as a crash leaves it."""
    for what, text in sorted(broken, key=lambda row: row[0] == "cut"):
        rows.insert(len(rows) if what == "cut" else rng.randrange(1, len(rows)), (what, text))
