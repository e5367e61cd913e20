"""Bytes of raw files in bounded memory: decompression with a limit, lines with a limit, a fixed end.

A small compressed file can unpack to terabytes and a file can grow or shrink while it is read; both end in one
`DataError`.
"""

import gzip
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from dpo_data.reading import decoding
from dpo_data.schema import DataError

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 20
MAX_RATIO = 200  # unpacked to packed: texts reach 5 to 20, gzip can reach 1,032
UNPACKED_BYTES = 256 << 20  # that any file may unpack to, whatever its ratio
MAX_BLANK_LINES = 1_000_000  # one after another


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of whole lines of a JSON lines file: bytes from `start` to `stop`, the first one line number `line`."""

    path: Path
    start: int
    stop: int
    line: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """What shows that a file changed: its size in bytes, the time of its last change, and which file it is."""

    size: int
    changed: int
    inode: int = field(compare=False)  # network drives may number a file again

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """The file's stamp now."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def grew(self, before: "Stamp") -> bool:
        """Whether the file may have been appended to since."""
        return self.inode == before.inode and self.size > before.size


def changed(path: Path) -> DataError:
    """The error of a file that was not left alone while it was read."""
    return DataError(f"{path}: the file changed while it was read. Run again once nothing writes to it.")


class _Span(io.RawIOBase):
    """The bytes of a file from `start` to `stop`, however long the file is by now; an error where it got shorter."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = stop - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = self._file.readinto(view) if self._left else 0
        if self._left and not count:
            raise changed(self._path)
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """A decompressed stream that stops at a limit."""

    def __init__(self, path: Path, stream: Any) -> None:
        self._path = path
        self._stream = stream
        self._packed = path.stat().st_size
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._size += len(data)
        check_ratio(self._path, self._packed, self._size)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def check_ratio(path: Path, packed: int, unpacked: int) -> None:
    """Raise `DataError` where a compressed file unpacks to far more than texts do."""
    if unpacked > max(UNPACKED_BYTES, MAX_RATIO * packed):
        raise DataError(
            f"{path}: its {packed:,} bytes unpack to {unpacked:,} or more, over {MAX_RATIO} times as many; expected "
            "texts, which unpack to 5 to 20 times as many. If the file is what you mean, unpack it and give the result."
        )


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed, as a stream. `DataError` where reading passes the limit of what it may hold."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        _check_trailer(path)
        return io.BufferedReader(_Unpacked(path, gzip.open(path)), BLOCK_BYTES)
    if suffix == ".zst":
        return io.BufferedReader(_Unpacked(path, pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")), BLOCK_BYTES)
    return path.open("rb")


def _check_trailer(path: Path) -> None:
    """Find most bombs before any record is read: a gzip file ends with the size of its last member (mod 2^32).

    The end of a damaged file is no size, so where it is too large the file is unpacked up to the limit.
    """
    with path.open("rb") as stream:
        packed = stream.seek(0, io.SEEK_END)
        stream.seek(max(packed - 4, 0))
        size = int.from_bytes(stream.read(4), "little")
    if size > max(UNPACKED_BYTES, MAX_RATIO * packed):
        with io.BufferedReader(_Unpacked(path, gzip.open(path)), BLOCK_BYTES) as stream:
            while stream.read(BLOCK_BYTES):
                pass


def span(piece: Piece) -> IO[bytes]:
    """The bytes of a piece as a stream that ends where the piece ends."""
    return io.BufferedReader(_Span(piece.path, piece.start, piece.stop), BLOCK_BYTES)


def lines(path: Path | Piece) -> Iterator[tuple[int, bytes, int]]:
    """(number, line, size) of every line that is not blank, without outer white space and byte order mark.

    Of a line longer than a record may be, the start alone is returned: its size shows that.
    """
    number, blank = (path.line, 0) if isinstance(path, Piece) else (1, 0)
    with closing(span(path) if isinstance(path, Piece) else opened(path)) as stream:
        while line := stream.readline(decoding.MAX_RECORD_BYTES + 1):
            if len(line) > decoding.MAX_RECORD_BYTES and not line.endswith(b"\n"):
                yield number, line[: decoding.SHOWN_BYTES], len(line) + _rest(stream)
            elif raw := (line.removeprefix(BOM) if number == 1 else line).strip():
                blank = 0
                yield number, raw, len(raw)
            else:
                blank += 1
                if blank > MAX_BLANK_LINES:
                    raise too_blank(path.path if isinstance(path, Piece) else path, number)
            number += 1


def _rest(stream: IO[bytes]) -> int:
    """Skip to the end of the line; its size."""
    size = 0
    while part := stream.readline(BLOCK_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def too_blank(path: Path, line: int) -> DataError:
    """The error of a file that holds little else than line ends."""
    return DataError(
        f"{path}: {MAX_BLANK_LINES:,} blank lines one after another, up to line {line:,}; expected records. "
        "Export or download the file again."
    )
