"""Pairs with scores beside them: H4's and Argilla's binarised UltraFeedback, distilabel's preference sets.

`chosen` and `rejected` (texts, or conversations that repeat the prompt) with `score_chosen`/`score_rejected`
(H4), `chosen-rating`/`rejected-rating` (Argilla) or `chosen_rating`/`rejected_rating` (distilabel). Equal
scores are ties: a binariser had to write one of the two first. Where the scores contradict the label, the
label stands and the attribute label_against_scores says so.
"""

from collections.abc import Iterator

from dpo_data.formats.ratings import rated_lists
from dpo_data.formats.trl import TEXTS, asked, pair
from dpo_data.reading.messages import messages
from dpo_data.reading.records import Item, Record, Side, Vote, number_of, plain

SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_score", "rejected_score"),
)
MODELS = (("chosen-model", "rejected-model"), ("chosen_model", "rejected_model"))
USED = TEXTS | {key for keys in (*SCORES, *MODELS) for key in keys}


def detect(record: Record) -> bool:
    """A chosen and a rejected answer with a score for each."""
    texts = all(isinstance(record.get(key), str | list) for key in ("chosen", "rejected"))
    return texts and any(record.get(key) is not None for key, _ in SCORES)


def parse(record: Record) -> Iterator[Item]:
    """One vote a record; the first side is `chosen`."""
    prompt, first, second, attributes = pair(record)
    names = next((keys for keys in SCORES if record.get(keys[0]) is not None), SCORES[0])
    scores = [None if record.get(key) is None else number_of(record[key], key) for key in names]
    model = next((keys for keys in MODELS if record.get(keys[0]) is not None), MODELS[0])
    choice: Side = "first"
    if None not in scores:
        chosen, rejected = (float(score or 0) for score in scores)
        choice = "tie" if chosen == rejected else "first"
        if chosen < rejected:
            attributes = {**attributes, "label_against_scores": "true"}
    rest = {key: value for key, value in record.items() if key not in USED}
    yield Vote(
        prompt,
        first,
        second,
        choice,
        annotator_kind="model",
        attributes={**plain(rest), **attributes},
        of_first=plain({"model": record.get(model[0]), "score": scores[0]}),
        of_second=plain({"model": record.get(model[1]), "score": scores[1]}),
    )


def detect_generations(record: Record) -> bool:
    """distilabel: parallel lists of generations and ratings."""
    return "generations" in record and "ratings" in record and "chosen" not in record


def parse_generations(record: Record) -> Iterator[Item]:
    """One vote for each pair of rated generations; null ratings take part in no pair."""
    names = record.get("generation_models") or record.get("models") or record.get("model_names")
    rest = {key: value for key, value in record.items() if key not in TEXTS}
    yield from rated_lists(
        messages(asked(record), "instruction"),
        record.get("generations"),
        record.get("ratings"),
        names,
        Vote([], "", "", "tie", annotator_kind="model", attributes=plain(rest)),
    )
