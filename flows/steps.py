"""How a step of a flow is run: directly, or as a Prefect task with a name, retries and a record.

A flow is a plain function that takes `step` and calls every stage through it, so the stages are listed
once, and everything runs and is tested without Prefect too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Step(Protocol):
    """Runs one stage of a flow."""

    def __call__(self, name: str, work: Callable[..., R], *args: Any, retries: int = 0) -> R: ...


def plain(name: str, work: Callable[..., R], *args: Any, retries: int = 0) -> R:
    """Call the stage, nothing more; a stage is safe to run again, so the caller decides about retries."""
    return work(*args)


def prefect_step(name: str, work: Callable[..., R], *args: Any, retries: int = 0) -> R:
    """Run the stage as a Prefect task. Stages skip what is done by content, so Prefect's own cache stays off:
    it gave stale hits when a file's content changed under the same path."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    runner = task(
        work,
        name=name.split(" ")[0],
        task_run_name=name.replace("{", "(").replace("}", ")"),
        retries=retries,
        retry_delay_seconds=2,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    result: R = runner(*args)
    return result


def as_flow(name: str, work: Callable[..., R], store: Path, *args: Any) -> R:
    """Run a flow function under Prefect: `work(*args, store, step=prefect_step)`."""
    from flows.environment import prepare

    prepare(store)
    from prefect import flow

    def run() -> R:
        return work(*args, store, step=prefect_step)

    run.__doc__ = work.__doc__
    result: R = flow(run, name=name, persist_result=False, validate_parameters=False)()
    return result


def record_table(key: str, rows: list[dict[str, Any]], description: str, step: Step) -> None:
    """Show counts as a table artifact of the Prefect run; never text of the data."""
    if step is prefect_step and rows:
        from prefect.artifacts import create_table_artifact

        create_table_artifact(key=key, table=rows, description=description)


def record_link(key: str, address: str, description: str, step: Step) -> None:
    """Show where a page lies as a link artifact of the Prefect run."""
    if step is prefect_step:
        from prefect.artifacts import create_link_artifact

        create_link_artifact(key=key, link=address, link_text=description, description=description)


def announce(event: str, resource: str, payload: dict[str, str], step: Step) -> None:
    """Emit the event that a served retrain waits for."""
    if step is prefect_step:
        from prefect.events import emit_event

        emit_event(event=event, resource={"prefect.resource.id": resource}, payload=payload)
