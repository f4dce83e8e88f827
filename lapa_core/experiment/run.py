# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of a suite in worker processes, in order of need, and appends one line per finished cell.

`lapa experiment` and `lapa laq options` are two suites; a suite's configuration has `out`, `only` and `workers`.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lapa_core.checkpoint import provenance
from lapa_core.cluster import end_with_parent
from lapa_core.errors import ContractError, DataError, LapaError
from lapa_core.experiment.cells import NEAR_CODES_M, TABLE_TEMPERATURE, Cell, all_cells
from lapa_core.experiment.chart import write_chart
from lapa_core.experiment.config import ExperimentConfig
from lapa_core.experiment.summary import summarise

log = logging.getLogger(__name__)

RESULTS_FILE = "results.jsonl"
CHART_FILE = "results.png"


def read_results(out: Path) -> list[dict[str, Any]]:
    """Return the finished cells' lines, oldest first."""
    path = out / RESULTS_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cell_key(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Return what makes two runs of a cell the same: its name, and the configuration that reaches it."""
    kept = {
        k: v
        for k, v in asdict(config).items()
        if k in ("size", "videos", "rollouts", "rollout_seed")
    }
    pretrained = cell.name.startswith(("pretrain/", "finetune/", "table/"))
    own_steps = "/scratch/" in cell.name or "/unipi/" in cell.name
    if config.pretrain_steps and pretrained and not own_steps:
        kept["pretrain_steps"] = config.pretrain_steps
    if cell.name.startswith("table/"):
        kept |= {"near_codes_m": NEAR_CODES_M, "table_temperature": TABLE_TEMPERATURE}
    uses_labels = cell.labels > 0 or cell.name == "data/labels"
    return {
        "cell": cell.name,
        **kept,
        "labels": str(config.labels or "expert") if uses_labels else None,
    }


class Suite(NamedTuple):
    """What can be run: both functions live at the top of a module, so that worker processes find them."""

    cells: Callable[[Any], Iterable[Cell]]
    """Yields every cell of a configuration, the most informative first."""
    key: Callable[[Any, Cell], dict[str, Any]]
    """Says what makes two runs of a cell the same."""


EXPERIMENT = Suite(all_cells, cell_key)


def pending_cells(config: Any, suite: Suite = EXPERIMENT) -> list[Cell]:
    """Return the cells to run: those asked for and what they need, without the finished ones.

    Raises:
        ContractError: no cell has such a name.
    """
    cells = {cell.name: cell for cell in suite.cells(config)}
    wanted = {name for name in cells if config.only in name}
    if not wanted:
        kinds = dict.fromkeys("/".join(name.split("/")[:3]) for name in cells)
        raise ContractError(
            f"only is {config.only!r}, which no cell's name contains; they begin with {', '.join(kinds)}"
        )
    while missing := {need for name in wanted for need in cells[name].needs} - wanted:
        wanted |= missing
    finished = [row["key"] for row in read_results(config.out)]
    return [
        cell
        for cell in cells.values()
        if cell.name in wanted and suite.key(config, cell) not in finished
    ]


def run_cell(config: Any, cell: Cell, suite: Suite = EXPERIMENT) -> dict[str, Any]:
    """Run one cell in this process and return its line."""
    import torch

    torch.set_num_threads(1)
    start = time.time()
    figures = cell.run(config, cell)
    facts = {"seed": cell.seed, "labels": cell.labels, "seconds": round(time.time() - start, 1)}
    return {
        "cell": cell.name,
        "key": suite.key(config, cell),
        **facts,
        **provenance(),
        "figures": figures,
    }


def run_all(config: Any, suite: Suite = EXPERIMENT) -> list[str]:
    """Run what is pending and return the names of the cells that failed or could not start."""
    config.out.mkdir(parents=True, exist_ok=True)
    waiting = pending_cells(config, suite)
    blocked = {cell.name for cell in waiting}
    failed: list[str] = []
    running: dict[Future[dict[str, Any]], Cell] = {}
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        config.workers, mp_context=context, initializer=end_with_parent
    ) as pool:
        while waiting or running:
            ready = [cell for cell in waiting if not blocked & set(cell.needs)]
            for cell in ready[: config.workers - len(running)]:
                waiting.remove(cell)
                running[pool.submit(run_cell, config, cell, suite)] = cell
                log.info("start %s", cell.name)
            if not running:
                return failed + [cell.name for cell in waiting]  # what they need has failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                error = future.exception()
                if error is not None:
                    failed.append(cell.name)
                    log.error(
                        "%s failed:\n%s", cell.name, "".join(traceback.format_exception(error))
                    )
                    continue
                blocked.discard(cell.name)
                _append(config.out, future.result())
                log.info("done %s in %.0f s", cell.name, future.result()["seconds"])
    return failed


def _append(out: Path, line: dict[str, Any]) -> None:
    with (out / RESULTS_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def run_and_show(config: Any, suite: Suite, show: Callable[[list[dict[str, Any]]], None]) -> None:
    """Run the pending cells, unless only the summary is wanted, then show all finished ones.

    Raises:
        DataError: the summary of nothing is wanted.
        LapaError: cells failed; the finished ones are kept.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    failed = [] if config.summary else run_all(config, suite)
    rows = read_results(config.out)
    if config.summary and not rows:
        raise DataError(
            f"{config.out / RESULTS_FILE} holds no finished cell: run without --summary"
        )
    show(rows)
    if failed:
        raise LapaError(
            f"{len(failed)} cell(s) did not finish: {', '.join(failed)}; the log says why. Run again to retry"
        )


def main(config: ExperimentConfig) -> None:
    """Run the pending cells, then print the tables and draw the chart."""

    def show(rows: list[dict[str, Any]]) -> None:
        print(summarise(rows))
        if write_chart(rows, config.out / CHART_FILE):
            print(f"\n{config.out / CHART_FILE}")

    run_and_show(config, EXPERIMENT, show)
