"""Record of what is planted, collected while the raw files are written."""

from typing import Any

Row = tuple[str | None, bytes]  # (what is wrong with the line, or None; the line)


class Truth:
    """`files`: format, records and unreadable records of each; `plants`: everything else by name."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.plants: dict[str, Any] = {}

    def plant(self, name: str, value: object) -> None:
        """Add one planted thing to the list of its name."""
        self.plants.setdefault(name, []).append(value)

    def file(self, name: str, form: str, records: int, unreadable: list[tuple[int, str]]) -> None:
        """Enter a file: its format, its raw records, and (line or item, what is wrong) of the unreadable."""
        self.files[name] = {
            "format": form,
            "records": records,
            "unreadable": [{"origin": f"{name}:{number}", "kind": kind} for number, kind in unreadable],
        }

    def jsonl(self, name: str, form: str, rows: list[Row]) -> bytes:
        """Enter a file of JSON lines and return its bytes."""
        self.file(name, form, len(rows), [(i, what) for i, (what, _) in enumerate(rows, 1) if what])
        return b"".join(text + b"\n" for _, text in rows)
