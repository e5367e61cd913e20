"""What the audit says in sentences: the headline, and what needs a person now.

Every sentence carries the number it rests on and the line that lists the rows behind it, and is left out
where there is nothing to say. The numbers are those of stats.json; none is computed here.
"""

from dataclasses import dataclass
from typing import Any

Stats = dict[str, Any]

REASONS = {
    "blank_response": "a response is empty",
    "blank_prompt": "the prompt is empty",
    "response_not_text": "a response is not text",
    "identical_responses": "both responses say the same",
    "identical_after_truncation": "the responses are the same where training cuts them",
    "tie": "the votes call it a tie",
    "contradictory_votes": "as many votes for one side as for the other",
    "no_votes": "no vote is left",
    "low_agreement": "the annotators disagree",
    "low_confidence": "the votes do not settle it",
    "responses_too_similar": "too alike to teach anything",
    "response_off_topic": "a response is off the prompt's topic",
    "wrong_language": "a response is in another language than the prompt",
    "response_too_long": "too long for the training window",
    "response_too_short": "a response is too short",
    "near_duplicate": "nearly the same comparison is kept",
    "contradicting_twin": "nearly the same comparison prefers the other side",
    "preference_cycle": "it closes a circle of preferences",
    "over_prompt_cap": "its prompt has enough comparisons",
    "contaminated": "the prompt is part of a benchmark",
    "length_rebalanced": "left out so that length buys no preference",
}


@dataclass(frozen=True)
class Task:
    """Something a person should look at: a sentence, and the command that lists its rows."""

    sentence: str
    command: str


def reason(name: str) -> str:
    """A reason in words."""
    return REASONS.get(name, name.replace("_", " "))


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage, or "not measured"."""
    return "not measured" if share is None else f"{100 * share:.{digits}f} %"


def number(value: float | int | None, digits: int = 2) -> str:
    """A number for a table; counts in full, measures with so many digits."""
    if value is None:
        return "not measured"
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:.{digits}f}"


def overall(stats: Stats, when: str) -> dict[str, Any]:
    """The length bias of all rows, "before" or "after"."""
    return next((row for row in stats["length_bias"][when] if row["slice"] == "all"), {})


def bias(row: dict[str, Any]) -> str:
    """How often the chosen response is the longer one, with its n and interval."""
    if row.get("p_longer") is None:
        return "not measured"
    interval = "" if row.get("p_low") is None else f", 95 % {percent(row['p_low'])} to {percent(row['p_high'])}"
    return f"{percent(row['p_longer'])} of {number(row['unequal'])}{interval}"


def headline(stats: Stats) -> list[str]:
    """Two or three sentences: how much is kept, why most of the rest is not, what length still buys."""
    counts = stats["counts"]
    share = percent(counts["kept"] / counts["comparisons"] if counts["comparisons"] else None, 0)
    sentences = [f"{number(counts['kept'])} of {number(counts['comparisons'])} comparisons are kept ({share})."]
    top = stats["reasons"][:3]
    if top:
        listed = ", ".join(f"{reason(row['reason'])} ({number(row['rows'])})" for row in top)
        sentences.append(f"Most others are dropped because {listed}; a comparison may have several reasons.")
    before, after = overall(stats, "before"), overall(stats, "after")
    if before.get("p_longer") is not None and after.get("p_longer") is not None:
        sentences.append(
            f"The chosen response was the longer one in {percent(before['p_longer'])} of decided comparisons; "
            f"among those kept it is in {percent(after['p_longer'])}, {_verdict(after)}."
        )
    return sentences


def _verdict(after: dict[str, Any]) -> str:
    if after.get("p_low") is None:
        return "too few to say whether length still buys preference"
    if after["p_low"] <= 0.5 <= after["p_high"]:
        return "so length no longer buys preference as far as this many rows can show"
    return "so length still buys preference"


def tasks(stats: Stats) -> list[Task]:
    """What needs a human now, most pressing first."""
    found: list[Task] = []
    for row in stats["annotators"]["rows"]:
        if row.get("flag"):
            what = "votes against the others" if row["flag"] == "inverted" else "votes like a coin"
            found.append(
                Task(
                    f"Annotator {row['annotator']} {what} ({number(row['votes'])} votes): "
                    "talk to them, or leave them out.",
                    f"dpo sql \"from votes where annotator = '{_quoted(row['annotator'])}'\"",
                )
            )
    torn = stats["contradictions"]
    if torn["quarantined"]:
        found.append(
            Task(
                f"{number(torn['quarantined'])} comparisons have as many votes for one side as for the other: "
                "a further vote would settle them.",
                reason_query("contradictory_votes"),
            )
        )
    twins = next((row for row in stats["reasons"] if row["reason"] == "contradicting_twin"), None)
    if twins:
        found.append(
            Task(
                f"{number(twins['rows'])} comparisons have a near twin that prefers the other side: read both.",
                reason_query("contradicting_twin"),
            )
        )
    unread = stats["counts"]["rejected_records"]
    if unread:
        found.append(
            Task(
                f"{number(unread)} raw records could not be read: mend them at the source.",
                'dpo sql "from rejects"',
            )
        )
    return found


def reason_query(name: str) -> str:
    """The line that lists the rows of a reason."""
    return f"dpo sql \"from ledger where list_contains(reasons, '{_quoted(name)}')\""


def _quoted(text: str) -> str:
    return str(text).replace("'", "''")
