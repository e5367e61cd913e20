"""Texts and names that try to be more than text, for the tests of every page."""

from helpers.planted_version import Planted

TEXTS = (
    "<script>alert('script')</script>",
    "\"><img src=x onerror=\"alert('img')\"><svg onload=alert('svg')>",
    "<iframe src='javascript:alert(1)'></iframe><a href='javascript:alert(2)'>x</a><base href='//evil.invalid/'>",
    "</style></title></textarea><link rel=stylesheet href='http://evil.invalid/x.css'><style>@import 'http://evil.invalid'",
    "![x](http://evil.invalid/pixel.png) [link](javascript:alert(3)) **bold** `code`",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 bell and \x9b2J",
    '=HYPERLINK("http://evil.invalid","x") +1 @SUM(1) -2',
    "\u202egnp.exe\u202c \u2067abc\u2069 \u200b\u200e\u200f zero",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}<%= 7 %>",
    "W" * 50_000,
    "' or 1=1; drop table ledger; --",
)
NAMES = (
    "<script>alert('name')</script>",
    '"; touch /tmp/owned; echo "',
    "$(touch /tmp/owned) `touch /tmp/owned`",
    "o'brien\\",
    "\u202eevil\x1b[31m",
    "N" * 5_000,
    "two\nlines!",
)


def hostile_rows() -> list[Planted]:
    """Every text in a prompt and both responses, every name as source and category; some dropped, some kept."""
    return [
        Planted(
            f"{text} {i}",
            f"better {text} {i} {j}",
            f"worse {i} {j} {text}",
            ("tie",) if (i + j) % 3 == 0 else (),
            source=name,
            category=name,
            votes=2,
            against=(i + j) % 2,
        )
        for i, text in enumerate(TEXTS)
        for j, name in enumerate(NAMES)
    ]
