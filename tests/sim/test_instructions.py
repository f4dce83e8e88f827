# SPDX-License-Identifier: Apache-2.0
"""Sentences and their meaning are each other's inverse."""

import numpy as np
import pytest

from lapa_core.errors import ContractError
from lapa_core.sim.instructions import FAMILIES, meanings, parse_meaning, phrasings
from lapa_core.sim.tasks import parse_instruction, sample_task


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sentence_has_exactly_its_meaning(family):
    everything = [(sentence, m) for m in meanings(family) for sentence in phrasings(m)]
    assert len({sentence for sentence, _ in everything}) == len(everything)
    for sentence, meaning in everything:
        assert parse_meaning(sentence) == meaning
        assert meaning.block in sentence.split()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_meaning_has_several_phrasings(family):
    assert all(len(phrasings(meaning)) >= 4 for meaning in meanings(family))


def test_no_sentence_belongs_to_two_families():
    sentences = [s for family in FAMILIES for m in meanings(family) for s in phrasings(m)]
    assert len(sentences) == len(set(sentences))


def test_case_spaces_and_full_stop_do_not_matter():
    task = parse_instruction(" Push the  RED block left.")
    assert (task.family, task.block, task.direction) == ("push_direction", "red", "left")


def test_an_unknown_sentence_is_answered_with_close_ones():
    with pytest.raises(ContractError, match="push the red block left"):
        parse_instruction("push the red blok left")
    with pytest.raises(ContractError, match="point_to_block"):
        meanings("juggle")


def test_sampled_tasks_cover_families_and_parse_back():
    rng = np.random.default_rng(0)
    tasks = [sample_task(rng) for _ in range(200)]
    assert {task.family for task in tasks} == set(FAMILIES)
    assert all(parse_instruction(task.instruction) == task for task in tasks)
