"""What a command finds around it: a launcher with other processes, and Prefect, made quiet.

No server started by hand, no telemetry, no noise. `prepare` must run before Prefect is first imported, which reads
these variables at import. A value that a person has set already wins.
"""

import os
import tempfile
from pathlib import Path

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    # A first start migrates its SQLite file: 15 to 20 s were measured, right at Prefect's own limit of 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # never pickle
    # The page asks the server it came from; by default it asks port 4200, whatever port the server has.
    "PREFECT_UI_API_URL": "/api",
}

_LEAST = 8 << 20  # bytes: Prefect's database and its journal after a first start take 6 MB


def processes() -> int:
    """How many processes torchrun or `accelerate launch` started, this one included; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def first_process() -> bool:
    """Whether this process speaks and writes; the others of a launch do their share of a training in silence."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"


def _check_room(home: Path) -> None:
    """Raise the system's own error where Prefect cannot write: it would wait for its server, and report a time-out."""
    with tempfile.TemporaryFile(dir=home) as probe:
        probe.write(bytes(_LEAST))
        probe.flush()
        os.fsync(probe.fileno())


def prepare(store: Path) -> None:
    """Set Prefect's surroundings; its own files go into the store."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str((store / "prefect").resolve()))
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)  # Prefect does not make the parents
    _check_room(home)
    if "?" in str(home):  # which begins the options in the address of a database
        address = f"sqlite+aiosqlite:///{(home.resolve() / 'prefect.db').as_uri()}?uri=true"
        os.environ.setdefault("PREFECT_API_DATABASE_CONNECTION_URL", address)


def quiet_failures() -> None:
    """For one run of a command: Prefect logs no failed run, since the command reports it. After `prepare`."""
    for name in ("FLOW_RUNS", "TASK_RUNS"):
        os.environ.setdefault(f"PREFECT_LOGGING_LOGGERS_PREFECT_{name}_LEVEL", "CRITICAL")


STORE = Path("data/store")
