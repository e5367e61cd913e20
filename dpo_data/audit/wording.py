"""What the audit says in words: reasons, numbers, what needs a person now, and the lines that list rows.

Every sentence carries the number it rests on and the line that lists the rows behind it, and is left out
where there is nothing to say. The numbers are those of stats.json; none is computed here.
"""

import re
from dataclasses import dataclass
from hashlib import md5
from typing import Any

from dpo_data.text.escape import short

Stats = dict[str, Any]

_PLAIN = re.compile(r"[\w .,:;@+/()-]{1,80}", re.ASCII)
_UNQUOTED = ("source", "language", "annotator", "category")  # read best; any other name may be a word of SQL

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
    "near_duplicate": "nearly the same comparison is kept",
    "contradicted_by_twin": "nearly the same comparison prefers the other side",
    "preference_cycle": "it closes a circle of preferences",
    "over_prompt_cap": "its prompt has enough comparisons",
    "contaminated": "it holds an item of a benchmark",
    "contaminated_in_other_words": "the prompt asks a benchmark item in other words",
    "length_rebalanced": "dropped to balance response length",
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


def trimmed(value: float) -> str:
    """A measure or its limit to three places, none where it is whole: 0.875, 1024."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 vote, 2 votes."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def overall(stats: Stats, when: str) -> dict[str, Any]:
    """The length bias of all rows, "before" or "after"."""
    return next((row for row in stats["length_bias"][when] if row["slice"] == "all"), {})


def length_columns(row: dict[str, Any]) -> str:
    """The columns of the ledger in which a row of the length bias was measured."""
    name = "tokens" if row.get("unit") == "tokens" else "chars"
    return f"{name}_a, {name}_b"


def bias(row: dict[str, Any]) -> str:
    """How often the chosen response is the longer one, with its n and interval."""
    if row.get("p_longer") is None:
        return "not measured"
    interval = "" if row.get("p_low") is None else f" (95 %: {percent(row['p_low'])} to {percent(row['p_high'])})"
    return f"{percent(row['p_longer'])} of {number(row['unequal'])}{interval}"


def verdict(after: dict[str, Any]) -> str:
    """Whether longer or shorter responses are still preferred, by the interval."""
    if after.get("p_low") is None:
        return "too few to judge length bias"
    if after["p_low"] <= 0.5 <= after["p_high"]:
        return "so no length bias is detectable in this many rows"
    side = "longer" if after["p_low"] > 0.5 else "shorter"
    return f"so the chosen response is still more often the {side} one"


def tasks(stats: Stats) -> list[Task]:
    """What needs a human now, most pressing first."""
    found = [_annotator(row) for row in stats["annotators"]["rows"] if row.get("flag")]
    torn = stats["contradictions"]["quarantined"]
    if torn:
        found.append(
            Task(
                f"{counted(torn, 'comparison')} with as many votes for one side as for the other: "
                "a further vote would settle it (dpo review, queue torn).",
                reason_query("contradictory_votes"),
            )
        )
    twins = next((row for row in stats["reasons"] if row["reason"] == "contradicted_by_twin"), None)
    if twins:
        found.append(
            Task(
                f"{counted(twins['rows'], 'comparison')} with a near twin that prefers the other side: read both.",
                reason_query("contradicted_by_twin"),
            )
        )
    found += [_target(row) for row in stats["targets"] if row["short"]]
    unread = stats["counts"]["rejected_records"]
    if unread:
        found.append(
            Task(f"{counted(unread, 'raw record')} unreadable: fix them at the source.", 'dpo sql "from rejects"')
        )
    return found


def _annotator(row: dict[str, Any]) -> Task:
    what = "votes against the others" if row["flag"] == "inverted" else "votes like a coin"
    name = short(row["annotator"], 40)
    return Task(
        f"Annotator {name} {what} ({counted(row['votes'], 'vote')}): talk to them, or leave them out.",
        votes_query(row["annotator"]),
    )


def _target(row: dict[str, Any]) -> Task:
    slice_, value = short(row["slice"], 40), short(row["value"], 40)
    sentence = (
        f"{slice_} {value} holds {number(row['kept'])} of {number(row['target'])} pairs wanted, {number(row['short'])} "
        f"short: {_remedy(row)}."
    )
    return Task(sentence, slice_query(row["slice"], row["value"]))


def _remedy(row: dict[str, Any]) -> str:
    """Why a slice is short, and so what would help."""
    if row["comparisons"] < row["target"]:
        return f"only {counted(row['comparisons'], 'comparison')} came in, so collect more"
    lost = ", ".join(f"{reason(one['reason'])} ({number(one['rows'])})" for one in row["dropped_for"])
    return f"of {counted(row['comparisons'], 'comparison')}, most dropped because {lost or 'no side is preferred'}"


def reason_query(name: str) -> str:
    """The line that lists the rows of a reason."""
    return query(f"from ledger where list_contains(reasons, {literal(name)})")


def votes_query(annotator: str | None) -> str:
    """The line that lists the votes of an annotator."""
    return query(f"from votes where {equals('annotator', annotator)}")


def slice_query(name: str, value: str) -> str:
    """The line that lists the rows of a slice."""
    if value.startswith("other (") and value.endswith(" values)"):
        return query(f"select {_column(name)}, count(*) from ledger group by 1 order by 2 desc")
    return query(f"from ledger where {equals(name, None if value == 'not measured' else value)}")


def query(sql: str) -> str:
    """A line for the shell. Text of the data stands in `sql` only as `equals` and `_column` write it."""
    return f'dpo sql "{sql}"'


def equals(column: str, value: str | None) -> str:
    """A condition on a column that any value of the data may stand in.

    A value with signs that a shell or a terminal could obey is told by its hash: a pasted line must run nothing.
    """
    name = _column(column)
    if value is None:
        return f"{name} is null"
    if _PLAIN.fullmatch(value):
        return f"{name} = {literal(value)}"
    return f"md5({name}) = '{_hash(value)}'"


def _column(name: str) -> str:
    """A column's name for SQL inside a shell's double quotes; an odd one is found by its hash."""
    if name in _UNQUOTED:
        return name
    if _PLAIN.fullmatch(name):
        return f'\\"{name}\\"'
    return f"COLUMNS(lambda name: md5(name) = '{_hash(name)}')"


def _hash(text: str) -> str:
    return md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"
