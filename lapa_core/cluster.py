# SPDX-License-Identifier: Apache-2.0
"""One function over many shards: in this process, in several, or on a Ray cluster, with the same results.

The function must depend on its argument alone: then it does not matter where a shard runs, in which order, or how
often, and a worker that dies costs only the shards it was at. Results come back to the caller, who writes them, so a
cluster needs shared storage for what is read but not for what is written. Imports nothing outside the standard
library until Ray is asked for.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from lapa_core.errors import LapaError, SetupError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

DEATHS = 3
"""So many times worker processes may die (killed, out of memory) before the work is given up."""

ANSWER_S = 5.0
"""How long the head of a Ray cluster may take to accept a connection [s]."""

_work: Callable[[Any], Any] | None = None
"""What a worker process calls; sent once, at its start."""


def map_shards(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int = 1,
    ray: str = "",
    gpus: float = 0.0,
) -> Iterator[tuple[int, Result]]:
    """Yield (position in `items`, result) as the shards are finished, each exactly once, in any order.

    Args:
        work: picklable unless it runs in this process; its result must not depend on where or when it runs.
        items: picklable descriptions of the shards, small: what they name is read where they run.
        workers: processes on this machine; 1 works in this one. Not used with Ray.
        ray: address of a Ray cluster (`auto`, `host:port`, `ray://host:port`, or `local` for one on this machine),
            which runs a shard on each of its CPUs; empty uses no Ray.
        gpus: GPUs that each shard needs on the cluster.

    Raises:
        SetupError: Ray is missing or cannot be reached, or workers keep dying.
        LapaError: whatever `work` raises.
    """
    if ray:
        return _map_ray(work, items, ray, gpus)
    if workers > 1 and len(items) > 1:
        return _map_processes(work, items, workers)
    return ((position, work(item)) for position, item in enumerate(items))


def _map_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[int, Result]]:
    waiting = dict(enumerate(items))
    deaths = 0
    while waiting:
        try:
            for position, result in _one_pool(work, dict(waiting), workers):
                del waiting[position]
                yield position, result
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == DEATHS:
                raise SetupError(
                    f"worker processes died {DEATHS} times (killed, or out of memory); give fewer workers and "
                    "start again: what is finished is kept"
                ) from error
            log.warning("a worker process died; its shards are done again")


def _one_pool(
    work: Callable[[Item], Result], waiting: dict[int, Item], workers: int
) -> Iterator[tuple[int, Result]]:
    """Do the waiting shards with one pool of processes; no more than two per process are on their way."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(waiting)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(work,),
    )
    whole = False
    try:
        shards = iter(waiting.items())
        running: dict[Future[Result], int] = {}
        for position, item in islice(shards, 2 * workers):
            running[pool.submit(_call, item)] = position
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                for position, item in islice(shards, 1):
                    running[pool.submit(_call, item)] = position
                yield running.pop(future), result
        whole = True
    finally:
        if not whole:  # do not wait for shards that nobody will take
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    end_with_parent()


def end_with_parent() -> None:
    """Let this worker process end when its parent is gone, however that ended, and not go on or wait for ever."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def _map_ray(
    work: Callable[[Item], Result], items: Sequence[Item], address: str, gpus: float
) -> Iterator[tuple[int, Result]]:
    """Run each shard as one task of Ray Data, which starts it again elsewhere when its node or process dies."""
    ray = _import_ray()
    rows = [{"position": i, "item": pickle.dumps(item)} for i, item in enumerate(items)]
    if not rows:
        return

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        result = work(pickle.loads(row["item"]))
        return {"position": row["position"], "result": pickle.dumps(result)}

    connected_before = ray.is_initialized()
    _connect(ray, address)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the caller shows one
        shards = ray.data.from_items(rows, override_num_blocks=len(rows))
        for row in shards.map(apply, num_cpus=1, num_gpus=gpus).iter_rows():
            yield int(row["position"]), pickle.loads(row["result"])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LapaError):
            raise error.cause from error
        raise
    finally:
        if not connected_before:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Join the cluster, or start one on this machine for `local`; do nothing when connected already."""
    if ray.is_initialized():
        return
    _knock(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SetupError(
            f"no Ray cluster at {address!r} ({error}); start one with `ray start --head`, or give `local`"
        ) from error


def _knock(address: str) -> None:
    """Refuse `host:port` or `ray://host:port` where nobody listens: Ray itself tries for minutes, silently."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not (separator and host and port.isdecimal()):
        raise SetupError(
            f"ray is {address!r}; allowed are auto, local, host:port and ray://host:port"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise SetupError(
            f"no Ray cluster at {address!r} ({error}); start one with `ray start --head`, or give `local`"
        ) from error


def _import_ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray must not phone home; read at import
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SetupError(
            "Ray is not installed; run `pip install 'lapa_core[ray]'`, or leave --ray away to use the processes of "
            "this machine"
        ) from error
    return ray
