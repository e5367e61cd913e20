"""Where the work on text runs: here, in processes of this machine, or on a Ray cluster; with the same bytes as result.

Work is a plain function of one job, and whatever is large goes through files that every worker can reach, so the same
functions run on all three. Results come in the order of the jobs, and only a few jobs are out at a time.
A killed worker ends a run of `processes` with a `DataError` (run again: finished files are not made twice),
while Ray runs the job again elsewhere.
"""

import logging
import multiprocessing
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field

from dpo_data.schema import DataError
from dpo_data.settings import Settings

J = TypeVar("J")
R = TypeVar("R")
Work = Callable[[J], R]

_AHEAD = 2  # jobs out per worker: one at work, one waiting, so that memory stays bounded
_RETRIES = 5  # times Ray runs a job again whose worker or node went away


class ExecutorSettings(Settings):
    """Where the text-bound stages run. Not part of a version's id: it changes how long, never what."""

    kind: Literal["inline", "processes", "ray"] = "processes"
    workers: int | None = Field(default=None, ge=1)  # null: one per core, or per CPU of the Ray cluster
    address: str = "local"  # of the Ray cluster: local starts one here, auto or host:port joins one that runs
    gpus_per_encoder: float = Field(default=0, ge=0)  # Ray gives each embedding worker as much of a GPU


class Executor(Protocol):
    """Runs jobs; the three backs below are all there is."""

    def map(self, work: Work[J, R], jobs: Iterable[J]) -> Iterator[R]:
        """The results, in the order of the jobs. `work`, jobs and results must be picklable."""

    def map_on_actors(self, make: Callable[[], Work[J, R]], jobs: Iterable[J]) -> Iterator[R]:
        """The same, by what `make` returns: called once a worker, for work that loads a model first."""

    def close(self) -> None:
        """Let the workers go."""


def start(settings: ExecutorSettings, store: Path) -> "closing[Executor]":
    """The executor asked for, as a context manager. `DataError` where Ray or its view of `store` is missing."""
    if settings.kind == "inline":
        return closing(Inline())
    if settings.kind == "processes":
        return closing(Processes(settings.workers))
    return closing(Ray(settings, store))


class Inline:
    """In this process, one job after the other."""

    def map(self, work: Work[J, R], jobs: Iterable[J]) -> Iterator[R]:
        return map(work, jobs)

    def map_on_actors(self, make: Callable[[], Work[J, R]], jobs: Iterable[J]) -> Iterator[R]:
        work = None
        for job in jobs:
            work = work or make()  # without jobs nothing is loaded
            yield work(job)

    def close(self) -> None:
        """Nothing was started."""


class Processes:
    """In processes of this machine, started when there are two jobs or more, and kept until `close`."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def map(self, work: Work[J, R], jobs: Iterable[J]) -> Iterator[R]:
        jobs, several = _several(jobs)
        if not several or self._workers == 1:
            return map(work, jobs)
        if self._pool is None:
            self._pool = _pool(self._workers)
        return self._ordered(self._pool, work, jobs)

    def map_on_actors(self, make: Callable[[], Work[J, R]], jobs: Iterable[J]) -> Iterator[R]:
        jobs, several = _several(jobs)
        if not several or self._workers == 1:
            yield from Inline().map_on_actors(make, jobs)
            return
        with _pool(self._workers, make) as pool:
            yield from self._ordered(pool, _act, jobs)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _ordered(self, pool: ProcessPoolExecutor, work: Work[J, R], jobs: Iterable[J]) -> Iterator[R]:
        try:
            yield from _in_order(lambda job: pool.submit(work, job), Future.result, jobs, _AHEAD * self._workers)
        except BrokenProcessPool as problem:
            self.close()
            raise DataError(
                f"One of {self._workers} worker processes was killed while it measured, most often because memory ran "
                "out. What the others finished is kept: run the same command again, with fewer executor.workers if "
                "memory was short."
            ) from problem


class Ray:
    """Tasks and actors of Ray Core, on this machine or on a cluster that shares the store's folder."""

    def __init__(self, settings: ExecutorSettings, store: Path) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as problem:
            raise DataError(
                "executor.kind is ray, but Ray is not installed: pip install 'dpo-pipeline[ray]' on every node, or "
                "take executor.kind=processes."
            ) from problem
        local = settings.address == "local"
        try:
            _reach(settings.address)
            ray.init(
                address=settings.address,
                num_cpus=settings.workers if local else None,
                include_dashboard=False if local else None,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (OSError, ValueError, RuntimeError) as problem:
            raise DataError(
                f"executor.address {settings.address!r}: no Ray cluster answers there ({problem}). Expected local, "
                "auto, or host:port of a head started with `ray start --head`, with the same Ray and Python."
            ) from problem
        self._ray: Any = ray
        self._gpus = settings.gpus_per_encoder
        self._workers = settings.workers or int(ray.cluster_resources().get("CPU", 1))
        if not local:
            self._check_shared(store)

    def map(self, work: Work[J, R], jobs: Iterable[J]) -> Iterator[R]:
        task = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(_call)
        return self._ordered(partial(task.remote, work), jobs)

    def map_on_actors(self, make: Callable[[], Work[J, R]], jobs: Iterable[J]) -> Iterator[R]:
        kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=_RETRIES, max_task_retries=_RETRIES)(
            _Actor
        )
        first = list(islice(jobs := iter(jobs), self._workers))
        actors = [kind.remote(make) for _ in first]
        turn = 0

        def submit(job: J) -> Any:
            nonlocal turn
            turn += 1
            return actors[turn % len(actors)].act.remote(job)

        try:
            yield from self._ordered(submit, (job for part in (first, jobs) for job in part))
        finally:
            for actor in actors:  # or an error that somebody still holds would hold their cores and GPUs too
                self._ray.kill(actor)

    def close(self) -> None:
        self._ray.shutdown()

    def _ordered(self, submit: Callable[[J], Any], jobs: Iterable[J]) -> Iterator[Any]:
        try:
            yield from _in_order(submit, self._ray.get, jobs, _AHEAD * self._workers)
        except self._ray.exceptions.RayTaskError as problem:
            raise (problem.cause if isinstance(problem.cause, Exception) else problem) from None
        except self._ray.exceptions.RayError as problem:
            raise DataError(
                f"Ray lost a job {_RETRIES} times over ({type(problem).__name__}: {problem}). What is finished is "
                "kept: see `ray status` for the nodes, then run the same command again."
            ) from problem

    def _check_shared(self, store: Path) -> None:
        """Every node must see the store under the same path: files are what workers talk through."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        store.mkdir(parents=True, exist_ok=True)
        probe = self._ray.remote(num_cpus=0)(os.path.isdir)
        for node in filter(lambda node: node["Alive"], self._ray.nodes()):
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not self._ray.get(probe.options(scheduling_strategy=here).remote(str(store.resolve()))):
                raise DataError(
                    f"Ray node {node['NodeManagerAddress']} does not see {store.resolve()}: put the store and the "
                    "sources on storage that every node mounts under the same path."
                )


def _reach(address: str) -> None:
    """Raise OSError where no one listens: Ray itself would try for minutes, and then end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=5).close()


class _Actor:
    """A worker with its own model, loaded by its first job: what goes wrong there is then that job's error."""

    def __init__(self, make: Callable[[], Work[Any, Any]]) -> None:
        self._make = make
        self._work: Work[Any, Any] | None = None

    def act(self, job: Any) -> Any:
        if self._work is None:
            self._work = self._make()
        return self._work(job)


def _call(work: Work[J, R], job: J) -> R:
    return work(job)


_actor: list[_Actor] = []  # of a worker process


def _begin(make: Callable[[], Work[Any, Any]], threads: int) -> None:
    _end_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torch reads it at import; its bits do not depend on it
    _actor.append(_Actor(make))


def _end_with_parent() -> None:
    """End this worker when its parent ends, however it ends; nobody else would, and each holds its models' memory.

    By the parent's own pipe and not by PR_SET_PDEATHSIG, which fires when the thread that started a worker ends: the
    stages of a flow may run in threads of their own and share one pool.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what it had not finished has no name yet, and the next refresh removes it


def _act(job: Any) -> Any:
    return _actor[0].act(job)


def _pool(workers: int, make: Callable[[], Work[Any, Any]] | None = None) -> ProcessPoolExecutor:
    """Spawned, never forked: a fork of a process with polars or torch threads can hang."""
    context = multiprocessing.get_context("spawn")
    if make is None:
        return ProcessPoolExecutor(workers, context, _end_with_parent)
    threads = max(1, (os.cpu_count() or 1) // workers)
    return ProcessPoolExecutor(workers, context, _begin, (make, threads))


def _several(jobs: Iterable[J]) -> tuple[Iterator[J], bool]:
    """The jobs, and whether there are two or more: starting processes for one costs more than it saves."""
    rest = iter(jobs)
    first = list(islice(rest, 2))
    return (job for part in (first, rest) for job in part), len(first) > 1


def _in_order(submit: Callable[[J], Any], result: Callable[[Any], R], jobs: Iterable[J], ahead: int) -> Iterator[R]:
    out: deque[Any] = deque()
    for job in jobs:
        out.append(submit(job))
        if len(out) >= ahead:
            yield result(out.popleft())
    while out:
        yield result(out.popleft())
