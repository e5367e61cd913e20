"""The audit's first screen: the six questions that a data scientist comes with, each answered in a sentence or two.

An answer says what was measured, and where only a person can judge it says which sample to read. It points to the
section that shows the rest. The numbers are those of stats.json and changes.json; none is computed here.
"""

from dataclasses import dataclass
from typing import Any

from dpo_data.audit import wording
from dpo_data.audit.wording import Stats, counted, number, overall, percent
from dpo_data.text.escape import short


@dataclass(frozen=True)
class Answer:
    """A question, its answer, and the section (`id` in the page) that shows more."""

    question: str
    answer: str
    section: str


def answers(stats: Stats, changes: dict[str, Any] | None) -> list[Answer]:
    """The six answers, in the order in which they are asked."""
    return [
        Answer("Can I trust these pairs?", _trust(stats), "agreement"),
        Answer("What was dropped, and was that right?", _dropped(stats), "dropped"),
        Answer("Which annotators mislead?", _annotators(stats), "annotators"),
        Answer("Is the longer response still preferred?", _length(stats), "length"),
        Answer("What changed since the last version?", changed(changes), "changed"),
        Answer("Which rows should I look at?", _rows(stats), "now"),
    ]


def _trust(stats: Stats) -> str:
    trust = stats["trust"]
    if not trust["kept"]:
        return "No pair is kept."
    votes = (
        f"{number(trust['several_annotators'])} of {number(trust['kept'])} kept pairs have several annotators, "
        f"{number(trust['one_vote'])} a single vote."
    )
    if trust["vote_pairs"]:
        pairs = counted(trust["vote_pairs"], "pair")
        votes += f" Two votes on the same comparison agree in {percent(trust['agreement'])} of {pairs} of votes."
    if trust["expected_share"] is None:
        return f"{votes} How probable each choice is was not measured."
    return (
        f"{votes} By the votes and the estimated reliability of the annotators, about "
        f"{number(round(trust['expected_wrong']))} of {number(trust['measured'])} ({percent(trust['expected_share'])}) "
        f"are probably mislabelled and about {number(round(trust['expected_equal']))} "
        f"({percent(trust['expected_equal_share'])}) are true ties, measurable only in sources with tie votes. Check a "
        "random sample by hand: dpo review."
    )


def _dropped(stats: Stats) -> str:
    counts = stats["counts"]
    if not counts["dropped"]:
        return "Nothing was dropped."
    top = ", ".join(f"{wording.reason(row['reason'])} ({number(row['rows'])})" for row in stats["reasons"][:3])
    share = percent(counts["dropped"] / counts["comparisons"], 0)
    return (
        f"{number(counts['dropped'])} of {number(counts['comparisons'])} comparisons ({share}), most because {top}; a "
        "comparison may have several reasons. To check them by hand, dpo review draws a random sample per reason and "
        "reports the share of false drops with its interval."
    )


def _annotators(stats: Stats) -> str:
    found = stats["annotators"]
    flagged = [row for row in found["rows"] if row.get("flag")]
    if not flagged:
        return f"None of {number(found.get('named', found['annotators']))} named annotators is flagged."
    names = ", ".join(
        f"{short(row['annotator'], 30)} ({row['flag']}, {counted(row['votes'], 'vote')})" for row in flagged[:5]
    )
    more = f" and {number(len(flagged) - 5)} more" if len(flagged) > 5 else ""
    whole = number(found.get("named", found["annotators"]))
    return f"{number(found['flagged'])} of {whole} named annotators: {names}{more}."


def _length(stats: Stats) -> str:
    before, after = overall(stats, "before"), overall(stats, "after")
    if before.get("p_longer") is None or after.get("p_longer") is None:
        return "Not measured: no decided comparison has lengths."
    return (
        f"Of decided comparisons of unequal length the chosen response was the longer one in {wording.bias(before)}; "
        f"of those kept in {wording.bias(after)}, {wording.verdict(after)}."
    )


def changed(changes: dict[str, Any] | None) -> str:
    """What changed, in a sentence."""
    if changes is None:
        return "This is the first version of its store."
    parts = [
        counted(changes["new_comparisons"], "new comparison"),
        f"{counted(changes['entered'], 'pair')} entered",
        f"{number(changes['left'])} left",
        f"{number(changes['flipped'])} prefer the other side now",
    ]
    kept = f"{number(changes['kept_before'])} pairs were kept before, {number(changes['kept'])} are now"
    return f"{', '.join(parts)}; {kept}."


def _rows(stats: Stats) -> str:
    found = wording.tasks(stats)
    if not found:
        return "No urgent items. Consider reviewing a random sample: dpo review."
    first = found[0].sentence
    more = f" {number(len(found) - 1)} more below." if len(found) > 1 else ""
    return f"{first}{more}"
