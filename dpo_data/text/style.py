"""Style of a response: headers, list items, bold spans and code blocks, as Chatbot Arena counts them.

The patterns are those of FastChat's `rating_systems.py` (style control); headers, lists and bold are counted with
code blocks taken out, because a comment line in a script is no heading.
"""

import polars as pl

_BLOCK = r"(?s)```.*?(?:```|\z)"
_HEADER = r"(?m)^#{1,6}\s"
_LIST = r"(?m)^[ \t]*(?:\d+\.|[-*+])\s"
_BOLD = r"\*\*[^*\n]+\*\*|__[^_\n]+__"


def style_counts(text: pl.Expr) -> dict[str, pl.Expr]:
    """`headers`, `lists` (items), `bold` (spans) and `code` (blocks) of a text column."""
    prose = pl.when(text.str.contains("```", literal=True)).then(text.str.replace_all(_BLOCK, "")).otherwise(text)
    return {
        "headers": prose.str.count_matches(_HEADER),
        "lists": prose.str.count_matches(_LIST),
        "bold": prose.str.count_matches(_BOLD),
        "code": (text.str.count_matches("```", literal=True) + 1) // 2,
    }


def length_counts(text: pl.Expr) -> dict[str, pl.Expr]:
    """`chars` and `words` of a text column."""
    return {"chars": text.str.len_chars(), "words": text.str.count_matches(r"\S+")}
