# SPDX-License-Identifier: Apache-2.0
"""What a session file may say, and which episodes it asks for in which order."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lapa_ros.session_plan import SessionPlan, TaskPlan, load_session, slots

from lapa_core.errors import DataError
from lapa_core.sim.tasks import parse_instruction

GOOD = """
name: mine
tasks:
  push:
    instructions: [push the red block left]
    episodes: 2
"""


def written(tmp_path, text):
    path = tmp_path / "session.yaml"
    path.write_text(text)
    return str(path)


def test_the_session_that_ships_is_the_papers_size_and_the_simulator_understands_it():
    plan = load_session("tabletop")
    assert [task.episodes for task in plan.tasks.values()] == [150, 150, 150]
    assert plan.num_wanted == 450
    for slot in slots(plan):
        assert parse_instruction(slot.instruction)


def test_what_is_left_out_has_the_papers_count(tmp_path):
    plan = load_session(written(tmp_path, GOOD.replace("    episodes: 2\n", "")))
    assert plan.tasks["push"].episodes == 150
    assert (plan.operator, plan.order, plan.seed) == ("", "by_task", 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "a list; a mapping"),
        ("name: [", "not valid YAML"),
        ("name: mine", "lacks \\['tasks'\\]"),
        (GOOD + "colour: red", "unknown keys \\['colour'\\]"),
        (GOOD + "order: at_random", "by_task"),
        (GOOD + "seed: -1", "seed"),
        (GOOD + "name: twice", "given twice"),
        (GOOD + "operator: 5", "operator is 5"),
        (GOOD.replace("mine", "''"), "name is"),
        (GOOD.replace("2", "0"), "tasks.push.episodes is 0"),
        (GOOD.replace("2", "true"), "episodes is True"),
        (GOOD.replace("[push the red block left]", "[]"), "tasks.push.instructions"),
        (GOOD.replace("[push the red block left]", "left"), "a list of words"),
        (GOOD.replace("    episodes", "    count"), "unknown keys \\['count'\\]"),
        ("name: mine\ntasks: {}", "at least one task"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        load_session(written(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "session.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(DataError, match="cannot be read"):
        load_session(str(path))


def test_an_unknown_session_names_the_known_ones():
    with pytest.raises(DataError, match="tabletop"):
        load_session("table top")


TASKS = st.builds(
    TaskPlan,
    instructions=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(tuple),
    layouts=st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True).map(tuple),
    episodes=st.integers(1, 20),
)


@given(
    tasks=st.lists(TASKS, min_size=1, max_size=4),
    order=st.sampled_from(["by_task", "in_turn"]),
    seed=st.integers(0, 100),
)
def test_slots_are_balanced_unique_and_of_the_wanted_number(tasks, order, seed):
    plan = SessionPlan(
        name="s", tasks={f"t{i}": t for i, t in enumerate(tasks)}, order=order, seed=seed
    )
    found = slots(plan)
    assert len(found) == plan.num_wanted
    assert len({(slot.task, slot.number) for slot in found}) == len(found)
    assert sorted(slot.seed for slot in found) == list(range(seed, seed + len(found)))
    for name, task in plan.tasks.items():
        mine = [slot for slot in found if slot.task == name]
        assert [slot.number for slot in mine] == list(range(task.episodes))
        counts = Counter((slot.instruction, slot.layout) for slot in mine)
        assert max(counts.values()) - min(counts.values()) <= 1
        if task.episodes >= len(task.instructions) * len(task.layouts):
            assert len(counts) == len(task.instructions) * len(task.layouts)


def test_in_turn_goes_round_the_tasks():
    task = TaskPlan(instructions=("a",), episodes=2)
    plan = SessionPlan(name="s", tasks={"one": task, "two": task}, order="in_turn")
    assert [slot.task for slot in slots(plan)] == ["one", "two", "one", "two"]
