"""What a person or a script sees: one JSON object on stdout, or readable lines; everything else on stderr.

Text of the data passes through `inert` before it reaches a terminal: control characters could move the
cursor, change its title or hide what follows.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dpo_data.text.escape import inert
from flows import failures

_FOR_THE_USER = (("dpo_data.schema", "DataError"), ("dpo_train.config", "TrainError"))
_MOST = 2_000  # characters of an error message: one quotes the data's own keys, and there may be thousands

aside = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str = "") -> None:
    """One line of the answer, on stdout, at once: whoever reads a pipe may wait for the address of the review."""
    sys.stdout.write(f"{inert(line)}\n")
    sys.stdout.flush()


def answer(value: Mapping[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """The command's answer: the JSON object, or the lines for a person."""
    if as_json:
        # A terminal would obey C1 and direction marks, which JSON leaves as they are; a program gets the text itself.
        sys.stdout.write(json.dumps(value, ensure_ascii=sys.stdout.isatty(), default=str) + "\n")
    else:
        for line in lines:
            say(line)


def sentence(error: BaseException) -> str:
    """The message of an error as it may be shown and kept: inert, without credentials, of limited length."""
    from dpo_data.ingest.paths import masked  # here: it imports every format, which most commands do not need

    text = inert(masked(str(error)))
    if len(text) <= _MOST:
        return text
    kept = text[: _MOST * 3 // 4], text[-_MOST // 4 :]  # the end has the advice
    return f"{kept[0]} … ({len(text) - _MOST:,} characters left out) … {kept[1]}"


def failure(error: Exception) -> list[str]:
    """What went wrong and what to do, in a line or two, each as `sentence` gives it."""
    said = sentence(error)
    refused = None if _is_for_the_user(error) else failures.sentences(error)
    if refused is not None:
        return [inert(line) for line in refused]
    if isinstance(error, OSError) or _is_for_the_user(error):
        return [said]
    return [
        f"a fault of the program, not of the data: {type(error).__name__}: {said}",
        "Nothing half done is visible in the store. DPO_DEBUG=1 shows where it happened.",
    ]


def _is_for_the_user(error: Exception) -> bool:
    """Whether a package raised it for a person: any other ValueError is a fault of the program.

    Looked up where it was defined, since importing both packages would take longer than most commands.
    """
    kinds = (getattr(sys.modules.get(module), name, ()) for module, name in _FOR_THE_USER)
    return any(isinstance(error, kind) for kind in kinds)


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
