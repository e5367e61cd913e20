"""Where raw files are: a file, a folder, a glob, or any of these on a remote store (hf://, s3://, …).

A folder stands for the data files in it and below that some format recognises; files that belong to others as
companions (texts beside votes) are read with them and not by themselves, and a data file that nothing recognises
is an error that names it, never silence. Remote files are fetched by fsspec into a cache, by their version there.
"""

import glob
from hashlib import blake2b
from os.path import commonpath
from pathlib import Path
from typing import Any

from dpo_data.formats import READERS
from dpo_data.formats.detect import detect
from dpo_data.formats.files import COMPRESSIONS, SUFFIXES
from dpo_data.schema import DataError
from dpo_data.store.durable import replacing


def find(where: str | Path, cache: Path | None = None, format: str | None = None) -> list[Path]:
    """The raw files that `where` stands for, sorted by path.

    `cache` is the folder that remote files are fetched to; `format` the source's format where it is named (then a
    folder's files are all taken for it). `DataError` when there is none.
    """
    if "://" in str(where):
        return _remote(str(where), cache, format)
    path = Path(where)
    if path.is_file():
        return [path]
    if path.is_dir():
        return _recognised(path, format)
    found = sorted(Path(name) for name in glob.glob(str(where), recursive=True) if Path(name).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"{where}: no such file or folder, and no file matches it as a glob. Check the path.")
    return found


def is_data(path: Path) -> bool:
    """Whether the name ends like a raw file's."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not path.name.startswith(".")


def _recognised(folder: Path, format: str | None) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and is_data(path))
    if not found:
        raise DataError(f"{folder}: the folder holds no file that ends in {', '.join(SUFFIXES)}. Check the path.")
    taken: list[Path] = []
    beside: set[Path] = set()
    unknown: dict[Path, str] = {}
    for path in found:
        try:
            name = format or detect(path)
        except DataError as problem:
            unknown[path] = str(problem)
            continue
        taken.append(path)
        if name in READERS:
            beside.update(READERS[name].companions(path))
    for path, said in unknown.items():
        if path not in beside:
            raise DataError(f"{said} It stands in the folder {folder}: name the files you mean by a glob.")
    return [path for path in taken if path not in beside]


def _remote(where: str, cache: Path | None, format: str | None) -> list[Path]:
    import fsspec

    if cache is None:
        raise DataError(f"{where}: a remote path needs a cache folder to fetch to.")
    try:
        system, root = fsspec.core.url_to_fs(where)
        system.invalidate_cache()  # of listings: what changed there since would else go unseen while `dpo serve` runs
        names = [root] if system.isfile(root) else sorted(system.glob(root) if "*" in root else system.find(root))
        names = [name for name in names if is_data(Path(name))]
        if not names:
            raise DataError(f"{where}: nothing there ends in {', '.join(SUFFIXES)}. Check the address.")
        folder = _fetched(system, names, cache)
    except (ImportError, OSError, ValueError) as problem:
        if isinstance(problem, DataError):
            raise
        raise DataError(
            f"{where}: cannot be read ({problem}). Check the address, the network and the credentials, and that the "
            "fsspec driver of this protocol is installed (huggingface_hub for hf://, s3fs for s3://)."
        ) from problem
    if len(names) > 1:
        return _recognised(folder, format)
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_data(path))


def _fetched(system: Any, names: list[str], cache: Path) -> Path:
    """A local folder with copies of the remote files, laid out as there; another version there is another folder."""
    versions = "\n".join(f"{name} {system.ukey(name)}" for name in names)
    folder = cache / blake2b(versions.encode(), digest_size=8).hexdigest()
    root = Path(commonpath([str(Path(name).parent) for name in names]))
    for name in names:
        target = folder / Path(name).relative_to(root)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as partial:
                system.get_file(name, str(partial))
    return folder
