"""The verdicts of a store in memory, kept up to date by reading only what was added to the files since the last look.

A verdict costs the same however many there are: parsing all of them took 1.8 s a verdict at 10,000. Verdicts that
another process appends are seen too. A file that shrank or was replaced makes everything be read again.
"""

from bisect import insort
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from dpo_data.review import verdicts
from dpo_data.review.verdicts import Verdict


class VerdictLog:
    """Verdicts by reviewer and comparison. `bytes_read` counts what was read from the files so far."""

    def __init__(self, store: Path) -> None:
        self.bytes_read = 0
        self._store = store
        self._lock = Lock()  # requests run in threads
        self._clear()

    def of(self, reviewer: str) -> Mapping[str, list[Verdict]]:
        """Comparison -> this reviewer's verdicts on it, in the order given."""
        with self._lock:
            self._update()
            return self._by_reviewer.get(reviewer, {})

    def reviewers(self) -> list[str]:
        """Everyone with a verdict, by name."""
        with self._lock:
            self._update()
            return sorted(self._by_reviewer)

    def judged_elsewhere(self, version: str) -> frozenset[str]:
        """The comparisons with verdicts under other versions; the same object until there is a new one."""
        with self._lock:
            self._update()
            if version not in self._elsewhere:
                others = (found for name, found in self._by_version.items() if name != version)
                self._elsewhere[version] = frozenset().union(*others)
            return self._elsewhere[version]

    def all(self) -> list[Verdict]:
        """Every verdict, by reviewer and in the order given, as `verdicts.read`."""
        with self._lock:
            self._update()
            own = ((name, [v for given in rows.values() for v in given]) for name, rows in self._by_reviewer.items())
            return [verdict for _, rows in sorted(own) for verdict in sorted(rows, key=_moment)]

    def _clear(self) -> None:
        self._read: dict[Path, tuple[int, int]] = {}  # file -> inode and how many bytes of it are in memory
        self._by_reviewer: dict[str, dict[str, list[Verdict]]] = {}
        self._by_version: dict[str, set[str]] = {}
        self._elsewhere: dict[str, frozenset[str]] = {}

    def _update(self) -> None:
        folder = self._store / verdicts.FOLDER
        paths = [*verdicts.files(self._store), *sorted((folder / "passed").glob("*.jsonl"))]
        now = {path: path.stat() for path in paths}
        for path, (inode, size) in self._read.items():
            if path not in now or now[path].st_ino != inode or now[path].st_size < size:
                self._clear()
                break
        for path, stat in now.items():
            size = self._read.get(path, (0, 0))[1]
            if stat.st_size > size:
                self._read[path] = (stat.st_ino, self._added(path, size))

    def _added(self, path: Path, start: int) -> int:
        """Take in the lines from byte `start` on; up to which byte they are in memory.

        A last line without its end may still be written: it is read again next time unless it is a whole verdict.
        """
        with path.open("rb") as file:
            file.seek(start)
            added = file.read()
        self.bytes_read += len(added)
        end = start
        for line in added.splitlines(keepends=True):
            verdict = verdicts.parse(line)
            if verdict is None and not line.endswith(b"\n"):
                break
            end += len(line)
            if verdict is not None:
                self._add(verdict)
        return end

    def _add(self, verdict: Verdict) -> None:
        own = self._by_reviewer.setdefault(verdict.annotator, {})
        insort(own.setdefault(verdict.comparison_id, []), verdict, key=_moment)
        judged = self._by_version.setdefault(verdict.version, set())
        if verdict.comparison_id not in judged:
            judged.add(verdict.comparison_id)
            kept = self._elsewhere.get(verdict.version)
            self._elsewhere = {} if kept is None else {verdict.version: kept}


def _moment(verdict: Verdict) -> str:
    return verdict.at
