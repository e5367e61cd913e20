"""Files that judge one response at a time: thumbs (thumbs.jsonl) and ratings (rated.json)."""

import json
from random import Random
from typing import Any

from answers import answer_first, rambling
from drafts import Deck, broken_lines, line, scatter
from questions import ENGLISH
from truth import Row, Truth

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def thumbs(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """KTO rows: most thumbs stand alone, some prompts have one up and one down."""
    rows: list[Row] = []
    truth.plants["lone_thumbs"] = 0
    for number in range(380):
        draft = deck.draft(ENGLISH)
        prompt = draft.prompt[0]["content"]
        up = {"prompt": prompt, "completion": draft.better, "label": True}
        down = {"prompt": prompt, "completion": draft.worse, "label": False}
        if number % 24 == 0:
            rows += [(None, line(up)), (None, line(down))]
            truth.plant("opposite_thumbs", draft.id)
        else:
            rows.append((None, line(up if rng.random() < 0.6 else down)))
            truth.plants["lone_thumbs"] += 1
    rng.shuffle(rows)
    scatter(rows, broken_lines(up, "completion"), rng)
    return truth.jsonl("thumbs.jsonl", "kto", rows)


def rated(deck: Deck, truth: Truth, rng: Random) -> bytes:
    """UltraFeedback's shape: ratings as text, some "N/A"; `overall_score` misleads, as it does in the published set."""
    records = []
    for number in range(18):
        question = deck.question(ENGLISH)
        equal = number % 8 == 0
        unrated = number == 10
        scores = [3, 3] if equal else [4, 2]
        if not unrated and rng.random() < 0.35:
            scores.append(1)
        completions = []
        for k, score in enumerate(scores):
            text = (rambling if k else answer_first)(question, rng.randrange(3), rng)
            completions.append(_completion(k, text, ["N/A"] * 4 if unrated and k else _ratings(score, rng)))
        records.append(
            {
                "source": "house",
                "instruction": deck.prompt(question)[0]["content"],
                "models": [completion["model"] for completion in completions],
                "completions": completions,
                "category": question.category,
            }
        )
        if equal:
            truth.plant("equal_ratings", {"origin": f"rated.json:{number + 1}"})
    truth.file("rated.json", "ultrafeedback", len(records), [(11, "only one response is rated")])
    return (json.dumps(records, ensure_ascii=False, indent=1) + "\n").encode()


def _ratings(score: int, rng: Random) -> list[str]:
    ratings = [str(score)] * len(ASPECTS)
    if rng.random() < 0.3:
        ratings[rng.randrange(len(ASPECTS))] = "N/A"
    return ratings


def _completion(number: int, text: str, ratings: list[str]) -> dict[str, Any]:
    pairs = zip(ASPECTS, ratings, strict=True)
    return {
        "model": f"house-{number}",
        "response": text,
        "annotations": {aspect: {"Rating": rating, "Rationale": "by the guide"} for aspect, rating in pairs},
        "overall_score": 10.0 if number else 4.0,
    }
