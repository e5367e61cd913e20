"""Ratings of several responses to one prompt: `prompt` and `responses` of {text, rating} objects.

Every pair of responses that one annotator rated is a comparison; the higher rating wins, equal
ratings tie, and the strength is the gap as a share of the scale. `rating` is one number, or
`ratings` is an object {annotator: number}. A response without a rating takes part in no pair. The
scale is 1 to 5 unless the record says otherwise in `scale: [low, high]`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from dpo_data.reading.messages import messages
from dpo_data.reading.records import (
    Item,
    Message,
    Record,
    UnreadableError,
    Vote,
    identifier,
    moment,
    number_of,
    plain,
    response,
    response_of,
)

DEFAULT_SCALE = (1.0, 5.0)
FIELDS = {"prompt", "responses", "annotator", "at", "scale"}


def detect(record: Record) -> bool:
    """A list of rated responses."""
    responses = record.get("responses")
    return (
        "prompt" in record
        and isinstance(responses, list)
        and any(isinstance(item, dict) and ("rating" in item or "ratings" in item) for item in responses)
    )


def parse(record: Record) -> Iterator[Item]:
    """One vote for each pair of responses and annotator who rated both."""
    responses = record.get("responses")
    if not isinstance(responses, list) or not all(isinstance(item, dict) for item in responses):
        raise UnreadableError("Field 'responses' is no list of objects with a text and a rating.")
    low, high = record.get("scale") or DEFAULT_SCALE
    width = number_of(high, "scale") - number_of(low, "scale")
    if width <= 0:
        raise UnreadableError(f"Field 'scale' runs from {low} to {high}, expected the lower end first.")
    rest = plain({key: value for key, value in record.items() if key not in FIELDS})
    yield from by_rating(
        messages(record.get("prompt"), "prompt"),
        [response_of(item, "text") for item in responses],
        [_ratings(item, identifier(record.get("annotator"))) for item in responses],
        width=width,
        models=[item.get("model") for item in responses],
        common=Vote([], "", "", "tie", at=moment(record.get("at")), attributes=rest),
    )


def _ratings(item: Record, annotator: str | None) -> dict[str | None, float]:
    if isinstance(item.get("ratings"), dict):
        return {
            str(who): number_of(value, f"ratings.{who}") for who, value in item["ratings"].items() if value is not None
        }
    value = item.get("rating")
    return {} if value is None or value == "" else {annotator: number_of(value, "rating")}


def by_rating(
    prompt: list[Message],
    texts: Sequence[str],
    ratings: Sequence[Mapping[str | None, float]],
    width: float | None,
    models: Sequence[Any] = (),
    common: Vote | None = None,
) -> Iterator[Vote]:
    """Every pair of `texts` that one annotator rated, as a vote for the higher rating (equal: a tie).

    `ratings[i]` holds the ratings of `texts[i]` by annotator (None: anonymous); `width` is the scale's
    high end minus its low end, null where the scale is open. `common` lends its annotator kind, time and attributes.
    """
    common = common or Vote([], "", "", "tie")
    named = models or [None] * len(texts)
    for i, j in combinations(range(len(texts)), 2):
        for annotator in ratings[i]:
            if annotator not in ratings[j]:
                continue
            gap = ratings[i][annotator] - ratings[j][annotator]
            yield Vote(
                prompt,
                texts[i],
                texts[j],
                "first" if gap > 0 else "second" if gap < 0 else "tie",
                strength=min(abs(gap) / width, 1.0) if width else None,
                annotator=annotator,
                annotator_kind=common.annotator_kind,
                at=common.at,
                attributes=common.attributes,
                of_first=plain({"model": named[i]}),
                of_second=plain({"model": named[j]}),
            )


def rated_lists(
    prompt: list[Message], texts: Any, ratings: Any, models: Any, common: Vote, width: float | None = 4.0
) -> Iterator[Vote]:
    """`by_rating` from parallel lists of texts and single ratings; a null rating, or a null text, joins no pair."""
    if not isinstance(texts, list) or not isinstance(ratings, list) or len(texts) != len(ratings):
        raise UnreadableError("The lists of responses and of ratings are missing or of different lengths.")
    named = models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts)
    rated = [index for index, text in enumerate(texts) if text is not None and ratings[index] is not None]
    yield from by_rating(
        prompt,
        [response(texts[index], f"responses[{index}]") for index in rated],
        [{common.annotator: number_of(ratings[index], f"ratings[{index}]")} for index in rated],
        width=width,
        models=[named[index] for index in rated],
        common=common,
    )
