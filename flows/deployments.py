"""The two flows as Prefect's own process imports them by name when a schedule or an event starts one.

Prefect finds a served flow as a top-level name of a module, so these cannot be made inside a function; and this
module imports Prefect, so only `schedules` imports it, after `environment.prepare`.
"""

from pathlib import Path

from prefect import flow

from flows.recipe import load, train_config
from flows.refresh import refresh
from flows.steps import prefect_step, sentences
from flows.train import train


@flow(name="refresh", persist_result=False)  # type: ignore[untyped-decorator]
def refresh_on_schedule(recipe: str, store: str) -> str:
    """Refresh; the version that is current afterwards."""
    with sentences():
        return refresh(load(Path(recipe)), Path(store), step=prefect_step)["version"]


@flow(name="train", persist_result=False)  # type: ignore[untyped-decorator]
def train_on_publish(recipe: str, store: str, version: str = "current") -> str:
    """Train on what was published and report; the run's id."""
    with sentences():
        return train(train_config(load(Path(recipe))), version, Path(store), step=prefect_step)["run"]
