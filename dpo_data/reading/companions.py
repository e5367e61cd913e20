"""Rows of a file that is read beside the votes, by id: texts, questions, answers.

A row that is missing, broken or there twice with different content costs the records that need it, one reject each,
with the companion's name and line in the reason.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpo_data.reading.files import rows
from dpo_data.reading.records import Record, UnreadableError, reject


class Companion:
    """The values of a companion's rows by key; `key` and `value` read them from a row and may raise."""

    def __init__(self, path: Path, key: Callable[[Record], Any], value: Callable[[Record], Any] = lambda row: row):
        self._path = path
        self._rows: dict[Any, tuple[int, Any]] = {}
        self._faults: dict[Any, str] = {}
        self._unreadable: list[int] = []
        self._first_fault = ""
        for row in rows(path):
            place = None
            try:
                if row.problem is not None:
                    raise UnreadableError(row.problem)
                place = key(row.value)
                self._add(place, row.number, value(row.value))
            except Exception as problem:
                reason = reject(row, problem).reason
                if place is not None:
                    self._faults.setdefault(place, f"{path.name}, line {row.number}: {reason}")
                self._first_fault = self._first_fault or reason
                self._unreadable.append(row.number)

    def _add(self, key: Any, number: int, value: Any) -> None:
        line, earlier = self._rows.setdefault(key, (number, value))
        if earlier != value:
            self._faults[key] = f"{self._path.name} has it twice with different content, in lines {line} and {number}."

    def get(self, key: Any, what: str) -> Any:
        """The value under a key; `UnreadableError` where the record that needs it cannot be read. `what` names it."""
        if key in self._faults:
            raise UnreadableError(f"{what}: {self._faults[key]}")
        if key not in self._rows:
            unread = ""
            if self._unreadable:
                unread = (
                    f" ({len(self._unreadable)} of its records cannot be read, the first in line "
                    f"{self._unreadable[0]}: {self._first_fault})"
                )
            raise UnreadableError(f"{what} is not in {self._path.name}{unread}.")
        return self._rows[key][1]
