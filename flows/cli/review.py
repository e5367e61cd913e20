"""The review as a server, and what it found in readable lines."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpo_data.schema import DataError
from flows.output import percent


def serve(
    store: Path,
    version: str,
    host: str,
    port: int,
    token: str | None,
    names: tuple[str, ...],
    tell: Callable[[str], None],
) -> None:
    """Serve the review until it is stopped; `tell` is given the address once it can be opened."""
    import uvicorn

    from dpo_data.review.app import create_app

    page = create_app(store, version, host=host, token=token, names=names)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise DataError(
                f"{host} port {port}: {error.strerror}. Choose another with --port (0: any free)."
            ) from None
        bound = listening.getsockname()[1]
        listening.listen(128)
        shown = f"[{host}]" if ":" in host else host
        tell(f"Review at http://{shown}:{bound}/ (Ctrl-C ends it; verdicts are on the disk already)")
        settings = uvicorn.Config(page, log_level="warning", server_header=False, proxy_headers=False)
        uvicorn.Server(settings).run(sockets=[listening])


def finding_lines(found: dict[str, Any]) -> list[str]:
    """The precision of what is kept, the false drops by reason, and the reviewers."""
    kept = found["kept"]
    lines = [f"version   {found['version']}"]
    if kept and kept["verdicts"]:
        lines.append(f"kept      right in {_share(kept)} of {kept['verdicts']} verdicts on {kept['read']} pairs")
    else:
        lines.append("kept      nobody has read the random sample of kept pairs yet")
    for row in found["elsewhere"]:
        lines.append(f"elsewhere {row['verdicts']} verdicts under version {row['version']} (--version)")
    for row in found["reasons"]:
        what = "good pairs given up on purpose" if row["on_purpose"] else "false drops"
        lines.append(f"dropped   {row['reason']}: {what} {_share(row)} of {row['verdicts']} verdicts")
    lines += [f"reviewer  {row['reviewer']}: {row['verdicts']} verdicts" for row in found["reviewers"]]
    lines += [
        f"agree     {row['one']} and {row['other']}: {_share(row)} of {row['both']}" for row in found["agreement"]
    ]
    return lines


def _share(row: dict[str, Any]) -> str:
    if row["share"] is None:
        return "not measured"
    return f"{percent(row['share'])} (95 % {percent(row['low'], 0)} to {percent(row['high'], 0)})"
