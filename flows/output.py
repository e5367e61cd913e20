"""What a person or a script sees: one JSON object on stdout, or readable lines; everything else on stderr.

Text of the data passes through `inert` before it reaches a terminal: control characters could move the
cursor, change its title or hide what follows.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flows import failures

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

aside = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str = "") -> None:
    """One line of the answer, on stdout, at once: whoever reads a pipe may wait for the address of the review."""
    sys.stdout.write(f"{inert(line)}\n")
    sys.stdout.flush()


def answer(value: Mapping[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """The command's answer: the JSON object, or the lines for a person."""
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    else:
        for line in lines:
            say(line)


def inert(text: str) -> str:
    """Text without the control characters that a terminal would obey; line ends and tabs stay."""
    return _CONTROL.sub("�", text)


def failure(error: Exception) -> list[str]:
    """What went wrong and what to do, in a line or two; the data's own text is made inert."""
    said = inert(str(error))
    refused = None if isinstance(error, ValueError) else failures.sentences(error)
    if refused is not None:
        return [inert(line) for line in refused]
    if isinstance(error, ValueError | OSError):
        return [said]
    return [
        f"a fault of the program, not of the data: {type(error).__name__}: {said}",
        "Nothing half done is visible in the store. DPO_DEBUG=1 shows where it happened.",
    ]


@contextmanager
def working(what: str, own_bars: bool = False) -> Iterator[None]:
    """A spinner with the time passed, when a person watches stderr, unless the work draws bars of its own."""
    if own_bars or not sys.stderr.isatty():
        aside.print(f"{what} …", markup=False)
        yield
        return
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=aside, transient=True
    ) as bar:
        bar.add_task(what)
        yield


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage, or "not measured"."""
    return "not measured" if share is None else f"{100 * share:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits, or "not measured"."""
    return "not measured" if value is None else f"{value:.{digits}f}"


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of cells as aligned lines; the first row is the heading."""
    if not rows:
        return []
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
