"""Options that every command takes: the store, and machine-readable output."""

from pathlib import Path
from typing import Annotated

import typer

Store = Annotated[Path, typer.Option("--store", help="Where batches, versions and runs live.", envvar="DPO_STORE")]
Yes = Annotated[bool, typer.Option("--yes", help="With --prune: remove them; without it nothing is touched.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]


def check_yes(yes: bool, prune: int | None) -> None:
    """`--yes` alone is wrong use."""
    if yes and prune is None:
        raise typer.BadParameter("--yes goes with --prune KEEP")
