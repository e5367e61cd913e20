"""Where raw files are: a file, a folder, a glob, or any of these on a remote store (hf://, s3://, …).

A folder stands for the data files in it and below that some format recognises; files that belong to others as
companions (texts beside votes) are read with them and not by themselves, and a data file that nothing recognises
is an error that names it, never silence. Remote files are fetched by fsspec into a cache, by their version there.
Credentials belong in the environment or in fsspec's own configuration, not in an address; `masked` removes them.
"""

import glob
import re
from hashlib import blake2b
from os.path import commonpath
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dpo_data.formats import READERS
from dpo_data.formats.detect import detect
from dpo_data.reading.files import COMPRESSIONS, SUFFIXES, check_name
from dpo_data.schema import DataError
from dpo_data.store.atomic import replacing

# In an address the user part, with a colon up to the last @ (a password may have / in it), and a query of name=value.
_USER = re.compile(r"(?<=://)(?:[^\s/@:]*:\S*|[^\s/@]+)@")
_QUERY = re.compile(r"(://[^\s?'\"]*\?)[^\s'\"<>]*=[^\s'\"<>]*")
_KEYS = re.compile(r"\b(?:hf_|sk-|gh[opsu]_|github_pat_|AKIA|ASIA)[A-Za-z0-9_-]{16,}")
_ADVICE = (
    "Credentials do not belong in an address: give them in the environment (AWS_ACCESS_KEY_ID, HF_TOKEN, …) or in "
    "fsspec's configuration (~/.config/fsspec/conf.json)."
)


def masked(text: str) -> str:
    """Text without the user, password and query of the addresses in it, and without access keys of known makes."""
    return _KEYS.sub("***", _QUERY.sub(r"\1***", _USER.sub("***@", text)))


def find(where: str | Path, cache: Path | None = None, format: str | None = None) -> list[Path]:
    """The raw files that `where` stands for, sorted by path.

    `cache` is the folder that remote files are fetched to; `format` the source's format where it is named (then a
    folder's files are all taken for it). `DataError` when there is none.
    """
    check_name(where)
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
    suffixes = [suffix.lower() for suffix in Path(_without_query(str(path))).suffixes]
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

    shown = masked(where)
    if cache is None:
        raise DataError(f"{shown}: a remote path needs a cache folder to fetch to.")
    try:
        system, root = fsspec.core.url_to_fs(where)
        system.invalidate_cache()  # of listings: what changed there since would else go unseen while `dpo serve` runs
        names = [root] if system.isfile(root) else sorted(system.glob(root) if "*" in root else system.find(root))
        names = [name for name in names if is_data(Path(name))]
        if not names:
            raise DataError(f"{shown}: nothing there ends in {', '.join(SUFFIXES)}. Check the address.")
        folder = _fetched(system, names, cache)
    except (ImportError, OSError, ValueError) as problem:
        if isinstance(problem, DataError):
            raise
        advice = "" if shown == where else f" {_ADVICE}"
        raise DataError(
            f"{shown}: cannot be read ({_without_parts(str(problem), where)}). Check the address, the network and the "
            "credentials, and that the fsspec driver of this protocol is installed (huggingface_hub for hf://, s3fs "
            f"for s3://).{advice}"
        ) from problem
    if len(names) > 1:
        return _recognised(folder, format)
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_data(path))


def _without_query(name: str) -> str:
    """A remote file's name without the query that signs its address; other names as they are."""
    return name.partition("?")[0] if re.match(r"https?:/", name) else name


def _without_parts(text: str, where: str) -> str:
    """A driver's message without the secret parts of the address, which it may quote one by one."""
    quoted = [match[0] for match in _USER.finditer(where)]
    quoted += [match[0].removeprefix(match[1]) for match in _QUERY.finditer(where)]
    parts = {part for secret in quoted for part in re.split(r"[:@?&=/]", secret) if len(part) > 3}
    for secret in sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return masked(text)


def _fetched(system: Any, names: list[str], cache: Path) -> Path:
    """A local folder with copies of the remote files, laid out as there; another version there is another folder."""
    versions = "\n".join(f"{name} {system.ukey(name)}" for name in names)
    folder = cache / blake2b(versions.encode(), digest_size=8).hexdigest()
    paths = {name: Path(_without_query(name)) for name in names}
    root = Path(commonpath([str(path.parent) for path in paths.values()]))
    for name, path in paths.items():
        target = folder / path.relative_to(root)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as partial:
                system.get_file(name, str(partial))
    return folder
