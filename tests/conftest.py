"""Shared ground of the tests: quiet, offline, single-threaded."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of published sets beside the project; the test is skipped only where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no published sets at {REAL_DATA}")
    return REAL_DATA
