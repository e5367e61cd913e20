"""Proof that reading lost nothing: files that nobody changed meanwhile, and a fate for every raw record."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dpo_data.reading import streams
from dpo_data.reading.files import Stamp
from dpo_data.schema import DataError


def stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    """The stamp of every file, to be taken before any of them is read."""
    taken = {}
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file. Give a file, a folder or a glob that holds raw comparisons.")
        taken[file] = Stamp.of(file)
    return taken


@contextmanager
def unchanged(before: Mapping[Path, Stamp], growing: Iterable[Path] = ()) -> Iterator[None]:
    """Raise `DataError` where a file changed meanwhile, and in the place of any error that it caused.

    Files in `growing` are read to their first size only, so that more may be appended to them.
    """
    allowed = set(growing)
    try:
        yield
    except Exception:
        _check(before, allowed)
        raise
    _check(before, allowed)


def _check(before: Mapping[Path, Stamp], growing: set[Path]) -> None:
    for path, stamp in before.items():
        now = Stamp.of(path) if path.is_file() else None
        if now != stamp and not (now and path in growing and now.grew(stamp)):
            raise streams.changed(path)


def check_fates(path: Path, records: int, fates: Mapping[str, int]) -> None:
    """Raise `DataError` unless every record counted in the file came out of its reader as one thing or another."""
    if records != sum(fates.values()):
        became = " + ".join(f"{count} {name}" for name, count in fates.items())
        raise DataError(
            f"{path}: {records} records counted, but {became} came out of its reader. Nothing was written. If nothing "
            "else writes to the file, the reader of this format has a fault: report it with the file."
        )
