"""A store made from files of the sample, for tests that need real batches."""

from pathlib import Path

from dpo_data import batches

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


def store_of(store: Path, *names: str) -> Path:
    """Append the named files, one source each."""
    for name in names:
        batches.append(store, [SAMPLE / name], name.split(".")[0])
    return store
