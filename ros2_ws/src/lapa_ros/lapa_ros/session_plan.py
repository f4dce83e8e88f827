# SPDX-License-Identifier: Apache-2.0
"""What a recording session collects: the strictly read YAML file, and the episodes that it asks for. No ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lapa_core.errors import DataError
from lapa_core.paths import config_dir
from lapa_core.robot.contract import StrictLoader

Entry = TypeVar("Entry")
ORDERS = ("by_task", "in_turn")


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task of a session."""

    instructions: tuple[str, ...]
    """Phrasings, used in turn; at least one."""
    episodes: int = 150
    """Episodes wanted; the default is the paper's."""
    objects: tuple[str, ...] = ()
    """What lies on the table."""
    layouts: tuple[str, ...] = ("",)
    """How, used in turn; each phrasing meets each of them."""


@dataclass(frozen=True, kw_only=True)
class SessionPlan:
    """One session file."""

    name: str
    """Its name, which every recording carries: progress is counted by it."""
    tasks: Mapping[str, TaskPlan]
    """Task -> what is wanted of it."""
    operator: str = ""
    """Who demonstrates; "" where the node's parameter says it."""
    order: str = "by_task"
    """`by_task`: one task after the other; `in_turn`: one episode of each in turn."""
    seed: int = field(default=0)
    """Seed of the simulator's scene of the first episode; the others count up."""

    @property
    def num_wanted(self) -> int:
        """Episodes of all tasks."""
        return sum(task.episodes for task in self.tasks.values())


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One episode that a session wants."""

    task: str
    """Name of its task."""
    number: int
    """Which of that task's episodes, from 0."""
    instruction: str
    """What the arm is asked to do."""
    layout: str
    """How the scene is laid out."""
    seed: int
    """Seed of the simulator's scene."""


def slots(plan: SessionPlan) -> list[Slot]:
    """Return every episode of a plan in the order in which they are recorded."""
    first_seed, found = plan.seed, []
    for name, task in plan.tasks.items():
        for number in range(task.episodes):
            layout, phrasing = divmod(number, len(task.instructions))
            slot = Slot(
                task=name, number=number, instruction=task.instructions[phrasing],
                layout=task.layouts[layout % len(task.layouts)], seed=first_seed + number,
            )  # fmt: skip
            found.append(slot)
        first_seed += task.episodes
    if plan.order == "in_turn":
        found.sort(key=lambda slot: slot.number)  # stable: the tasks keep their order
    return found


def load_session(name_or_path: str) -> SessionPlan:
    """Load a session by its name in `config/sessions` or by the path of its .yaml file.

    Raises:
        DataError: there is none, or a key or value is wrong.
    """
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        path = config_dir() / "sessions" / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in (config_dir() / "sessions").glob("*.yaml"))
        raise DataError(
            f"session {name_or_path!r} does not exist; allowed are {known} or a .yaml path"
        )
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {error}") from error
    entry = _checked(data, SessionPlan, str(path))
    tasks = entry["tasks"]
    if not isinstance(tasks, dict) or not tasks:
        raise DataError(f"{path}: tasks is {tasks!r}; a mapping with at least one task is needed")
    entry["tasks"] = {
        str(name): _task(task, f"{path}: tasks.{name}") for name, task in tasks.items()
    }
    plan = SessionPlan(**entry)
    if plan.order not in ORDERS:
        raise DataError(f"{path}: order is {plan.order!r}; allowed are {list(ORDERS)}")
    if not isinstance(plan.operator, str):
        raise DataError(f"{path}: operator is {plan.operator!r}; words are needed")
    if not isinstance(plan.name, str) or not plan.name.strip():
        raise DataError(f"{path}: name is {plan.name!r}; words are needed")
    if not _is_count(plan.seed, least=0):
        raise DataError(f"{path}: seed is {plan.seed!r}; a whole number from 0 is needed")
    return plan


def _task(data: Any, where: str) -> TaskPlan:
    entry = _checked(data, TaskPlan, where)
    for key in ("instructions", "objects", "layouts"):
        if key not in entry:
            continue
        lines = entry[key]
        whole = isinstance(lines, list) and all(isinstance(x, str) and x.strip() for x in lines)
        if not whole or (key == "instructions" and not lines):
            raise DataError(f"{where}.{key} is {lines!r}; a list of words is needed")
        entry[key] = tuple(lines) or (("",) if key == "layouts" else ())
    task = TaskPlan(**entry)
    if not _is_count(task.episodes, least=1):
        raise DataError(f"{where}.episodes is {task.episodes!r}; a whole number from 1 is needed")
    return task


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _checked(data: Any, kind: type[Entry], where: str) -> dict[str, Any]:
    """Return a mapping whose keys are fields of `kind`, with none missing that has no default."""
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(data, dict):
        raise DataError(
            f"{where} is a {type(data).__name__}; a mapping of {sorted(known)} is needed"
        )
    if unknown := sorted(set(map(str, data)) - set(known)):
        raise DataError(f"{where} has unknown keys {unknown}; allowed are {sorted(known)}")
    needed = {"name", "tasks"} if kind is SessionPlan else {"instructions"}
    if missing := sorted(needed - set(data)):
        raise DataError(f"{where} lacks {missing}")
    return dict(data)
