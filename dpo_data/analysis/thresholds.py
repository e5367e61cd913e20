"""The numeric limits of a configuration as a table: which measure, which bound, which side keep_if, which reason.

For showing only: the audit and `explain` put a row's value beside its limit, and the decision itself is made by the
rules of each room. A reason may need several limits to be broken at once (too similar: by cosine, by edit
ratio, and not settled by the votes); each then names the others under `unless`, since any of them saves the row. A
slice may have limits of its own: `where` says which rows a limit is for.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

Table = list[dict[str, Any]]

# setting, measures it bounds, which side of the limit keep_if, reason
_LIMITS = (
    ("agreement.min_agreement", ("agreement",), ">=", "low_agreement"),
    ("agreement.min_confidence", ("confidence",), ">=", "low_confidence"),
    ("sizes.max_response_tokens", ("tokens_a", "tokens_b"), "<=", "response_too_long"),
    ("sizes.max_length", ("tokens_to_divergence",), "<", "identical_after_truncation"),
    ("similarity.min_prompt_cosine", ("similarity_prompt_a", "similarity_prompt_b"), ">=", "response_off_topic"),
    ("duplicates.jaccard", ("duplicate_similarity",), "<", "near_duplicate"),
    ("duplicates.part_jaccard", ("duplicate_part",), "<", "near_duplicate"),
    ("contamination.min_share", ("benchmark_overlap",), "<", "contaminated"),
    ("contamination.min_cosine", ("benchmark_similarity",), "<", "contaminated_in_other_words"),
    ("prompts.max_per_group", ("group_rank",), "<=", "over_prompt_cap"),
)
_ALIKE = (
    ("cosine", "similarity", "<="),
    ("edit_ratio", "edit_ratio", ">="),
    ("unless_confidence", "confidence", ">="),
)


def of(config: Mapping[str, Any]) -> Table:
    """Rows of measure, limit, stays (at_least, at_most, below), reason, setting, where, but, unless.

    `config` as in a manifest. `where` maps a slice column to the value that a limit is for; `but` maps slice columns to
    the values that a limit for all is not for. A limit that is switched off, or that is not there, has no row.
    """
    table = []
    for setting, measures, keep_if, reason in _LIMITS:
        bound = _value(config, setting)
        if bound is not None:
            table += [_row(measure, bound, keep_if, reason, setting) for measure in measures]
    table += _alike(config)
    for row in table:
        row["unless"] = [
            {"measure": other["measure"], "limit": other["limit"], "keep_if": other["keep_if"]}
            for other in table
            if (other["reason"], other["where"]) == (row["reason"], row["where"]) and other["setting"] != row["setting"]
        ]
    return table


def applies(limit: Mapping[str, Any]) -> pl.Expr:
    """True for the rows that a limit of the table is for."""
    own = [(pl.col(column) == value).fill_null(False) for column, value in limit["where"].items()]
    others = [pl.col(column).is_in(values).not_().fill_null(True) for column, values in limit["but"].items()]
    # Nulls are filled column by column: polars 2 fails where a literal is filled in a filter of 50,000 rows.
    return pl.all_horizontal(pl.lit(True), *own, *others)


def _row(measure: str, bound: float, keep_if: str, reason: str, setting: str) -> dict[str, Any]:
    row = {"measure": measure, "limit": float(bound), "keep_if": keep_if, "reason": reason, "setting": setting}
    return {**row, "where": {}, "but": {}}


def _alike(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The limits on likeness, for all rows and for each slice that has its own."""
    slices = _value(config, "similarity.by_slice") or {}
    own = {column: sorted(values) for column, values in slices.items()}
    general = _value(config, "similarity.responses")
    groups: list[tuple[str, Any, dict[str, str]]] = [("similarity.responses", general, {})]
    for column, values in slices.items():
        groups += [(f"similarity.by_slice.{column}.{value}", found, {column: value}) for value, found in values.items()]
    for setting, limits, where in groups:
        for name, measure, keep_if in _ALIKE:
            bound = (limits or {}).get(name)
            if bound is not None:
                row = _row(measure, bound, keep_if, "responses_too_similar", f"{setting}.{name}")
                yield {**row, "where": where, "but": {} if where else own}


def _value(config: Mapping[str, Any], setting: str) -> Any:
    found: Any = config
    for name in setting.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found
