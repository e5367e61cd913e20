"""Options that every command takes: the store, and machine-readable output."""

from pathlib import Path
from typing import Annotated

import typer

Store = Annotated[Path, typer.Option("--store", help="Where batches, versions and runs live.", envvar="DPO_STORE")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
