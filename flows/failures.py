"""Sentences for what the system refuses: a full disk, a limit, a read-only or forbidden place, a file that went.

The number of the error comes from Python, or from the words of polars and pyarrow, which raise errors without one.
"""

import errno
import os
import re

_NUMBER = re.compile(r"\((?:os error |errno )(\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_KEPT = "What was published before is as it was."
_AGAIN = "then run the same command again: it continues after the stages that are finished."
_SENTENCES = {
    errno.ENOSPC: (
        "no space is left on the disk",
        f"{_KEPT} Free some space, or see what `dpo versions --prune 3` would remove, {_AGAIN}",
    ),
    errno.EFBIG: (
        "a file would be larger than this process may write",
        f"{_KEPT} Raise the limit (`ulimit -f unlimited`) or move the store to another file system, {_AGAIN}",
    ),
    errno.EROFS: (
        "the file system is read-only",
        f"{_KEPT} Mount it writable or name another store (--store), {_AGAIN}",
    ),
    errno.EACCES: (
        "this user may not read or write there",
        f"{_KEPT} Change the owner or the permissions, or name another store (--store), {_AGAIN}",
    ),
    errno.EMFILE: (
        "too many files are open",
        f"{_KEPT} Raise the limit (`ulimit -n 65536`) or take fewer executor.workers, {_AGAIN}",
    ),
    errno.ENOENT: (
        "a file or folder is not there",
        "Check the path. If it is inside the store, another program removed it: run `dpo refresh`, which makes again "
        "what can be made from the sources.",
    ),
    errno.ENOTDIR: ("a file is where a folder is expected", "Check the path, or name another store (--store)."),
    errno.EIO: ("the disk reports an error", f"{_KEPT} Check the disk before anything else is written to it."),
    errno.ENOLCK: (
        "the file system has no locks",
        "Two refreshes at once would damage a store there: move the store to a local disk, or to NFS 4.",
    ),
}
_SAME = {
    errno.EDQUOT: errno.ENOSPC,
    errno.EPERM: errno.EACCES,
    errno.ENFILE: errno.EMFILE,
    errno.EOPNOTSUPP: errno.ENOLCK,
}


def number_of(error: Exception) -> int | None:
    """The system's number of an error; null where the system did not refuse anything."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    found = _NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else None


def sentences(error: Exception) -> list[str] | None:
    """What the system refused, where, and what to do; null for any other error."""
    number = number_of(error)
    known = _SENTENCES.get(_SAME.get(number, number)) if number is not None else None
    if known is None:
        return None
    names = [os.fsdecode(name) for name in (getattr(error, "filename", None),) if isinstance(name, str | bytes)]
    return [f"{known[0]}: {names[0] if names else error}", known[1]]
