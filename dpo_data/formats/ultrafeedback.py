"""UltraFeedback: `instruction` and `completions`, each rated by a model in four aspects.

The rating of a completion is the mean of its aspects' `Rating` (text "1".."5", or "N/A", which does not
count), never `overall_score`: published rows have a critique of 1 that became an overall 10. Every pair
of rated completions is a vote; equal means tie. A completion without any rating takes part in no pair.
"""

from collections.abc import Iterator
from typing import Any

from dpo_data.formats.ratings import by_rating
from dpo_data.reading.messages import user
from dpo_data.reading.records import Item, Record, UnreadableError, Vote, number_of, plain, response_of, text_of

SCALE_WIDTH = 4.0  # ratings run from 1 to 5


def detect(record: Record) -> bool:
    """Completions with annotations by aspect."""
    completions = record.get("completions")
    return (
        "instruction" in record
        and isinstance(completions, list)
        and any(isinstance(item, dict) and "response" in item and "annotations" in item for item in completions)
    )


def parse(record: Record) -> Iterator[Item]:
    """One vote for each pair of rated completions, in the order of the record."""
    completions = record.get("completions")
    if not isinstance(completions, list) or not all(isinstance(item, dict) for item in completions):
        raise UnreadableError("Field 'completions' is no list of objects with a response and its annotations.")
    means = [mean_rating(item.get("annotations")) for item in completions]
    yield from by_rating(
        user(text_of(record, "instruction")),
        [response_of(item, "response") for item in completions],
        [{} if mean is None else {None: mean} for mean in means],
        width=SCALE_WIDTH,
        models=[item.get("model") for item in completions],
        common=Vote([], "", "", "tie", annotator_kind="model", attributes=plain(_facts(record))),
    )


def _facts(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("instruction", "completions", "models")}


def mean_rating(annotations: Any) -> float | None:
    """Mean of the numeric aspect ratings; null when there is none."""
    if not isinstance(annotations, dict):
        return None
    given = [aspect.get("Rating") for aspect in annotations.values() if isinstance(aspect, dict)]
    numbers = [number_of(value, "Rating") for value in given if value is not None and str(value).strip() != "N/A"]
    return sum(numbers) / len(numbers) if numbers else None
