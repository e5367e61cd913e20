"""How a step of a flow is run: directly, or as a Prefect task with a name, retries and a record.

A flow is a plain function that takes `step` and calls every stage through it, so the stages are listed
once, and everything runs and is tested without Prefect too. Prefect logs and keeps the message of an exception, so it
gets a `StageError` with the sentence that a person gets, and never the exception itself.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


class StageError(Exception):
    """What Prefect sees of a failure: its sentence. `error` is the exception itself."""

    def __init__(self, error: Exception) -> None:
        from flows.output import sentence

        super().__init__(sentence(error))
        self.error = error

    def __repr__(self) -> str:
        return str(self)


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

    @wraps(work)
    def stage(*args: Any) -> R:
        with sentences():
            return work(*args)

    runner = task(
        stage,
        name=name.split(" ")[0],
        task_run_name=name.replace("{", "(").replace("}", ")"),
        retries=retries,
        retry_delay_seconds=2,
        retry_condition_fn=_can_retry,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    result: R = runner(*args)
    return result


def as_flow(name: str, work: Callable[..., R], store: Path, *args: Any) -> R:
    """Run a flow function under Prefect: `work(*args, store, step=prefect_step)`. Raises what it raises."""
    from flows.environment import prepare, quiet_failures

    prepare(store)
    quiet_failures()
    from prefect import flow

    def run() -> R:
        with sentences():
            return work(*args, store, step=prefect_step)

    run.__doc__ = work.__doc__
    try:
        result: R = flow(run, name=name, persist_result=False, validate_parameters=False)()
    except StageError as failed:
        raise failed.error from None
    return result


@contextmanager
def sentences() -> Iterator[None]:
    """Raise every exception as a `StageError`, which Prefect's logs show without a traceback."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_without_traceback)  # adding it twice changes nothing
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        raise StageError(error) from None


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], StageError):
        record.exc_info = None
    return True


def _can_retry(task: Any, run: Any, state: Any) -> bool:
    """Whether a second try may succeed: a disk or a network failed for a moment. A wrong recipe or file stays wrong."""
    failed = state.data
    error = failed.error if isinstance(failed, StageError) else failed
    return _is_passing(error) or _is_passing(getattr(error, "__cause__", None))


def _is_passing(error: BaseException | None) -> bool:
    lasting = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
    full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
    return isinstance(error, OSError) and not isinstance(error, lasting) and error.errno not in full


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
