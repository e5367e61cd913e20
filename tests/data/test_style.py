"""Style counts on texts counted by hand."""

import polars as pl
import pytest

from dpo_data.text import style


@pytest.mark.parametrize(
    ("text", "headers", "lists", "bold", "code"),
    [
        ("", 0, 0, 0, 0),
        ("plain prose - with a dash, 2. not a list, #no header", 0, 0, 0, 0),
        ("# One\ntext\n### Three\n####### seven is none", 2, 0, 0, 0),
        ("- a\n* b\n  + c\n1. d\n12. e\n-not", 0, 5, 0, 0),
        ("**one** and __two__ and **three\nlines**", 0, 0, 2, 0),
        ("before\n```\n# comment\n- item\n**b**\n```\n# after", 1, 0, 0, 1),
        ("```py\n# never closed\n- item", 0, 0, 0, 1),
        ("```a```\n```b```", 0, 0, 0, 2),
    ],
)
def test_style_is_counted_as_by_hand(text: str, headers: int, lists: int, bold: int, code: int) -> None:
    counted = pl.DataFrame({"text": [text]}).select(**style.style_counts(pl.col("text"))).row(0, named=True)
    assert counted == {"headers": headers, "lists": lists, "bold": bold, "code": code}
