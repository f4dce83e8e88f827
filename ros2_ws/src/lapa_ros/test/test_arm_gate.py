# SPDX-License-Identifier: Apache-2.0
"""Every reason to refuse a command, one by one."""

import math

import pytest
from arm_tools import Commander
from lapa_ros.arm_gate import CommandGate, Refused

NAN = math.nan


@pytest.fixture
def gate(contract):
    return CommandGate(contract, max_command_age_s=0.15)


@pytest.fixture
def make(contract, clock):
    return Commander(contract, clock)


def test_a_good_command_passes(gate, make, clock):
    delta = gate.check(make(), clock(), tracking=False)
    assert delta.translation_m.tolist() == [0.01, 0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("contract", {"contract_hash": "0" * 64}),
        ("contract", {"contract_hash": ""}),
        ("stale", {"stamp_s": 999.8}),
        ("stale", {"stamp_s": 1000.2}),
        ("stale", {"stamp_s": NAN}),
        ("stale", {"observation_s": 999.4}),
        ("values", {"values": (NAN, 0, 0, 0, 0, 0, 0)}),
        ("values", {"values": (0, 0, 0, 0, math.inf, 0, 0)}),
        ("values", {"values": (0, 0, 0, 0, 0, 0, 1.5)}),
        ("order", {"sequence": 0}),
        ("frame", {"frame": "ee_gripper_link"}),
        ("frame", {"frame": ""}),
    ],
)
def test_bad_commands_are_refused_with_their_reason(gate, make, clock, kind, changes):
    with pytest.raises(Refused) as refusal:
        gate.check(make(**changes), clock(), tracking=True)
    assert refusal.value.kind == kind


def test_a_command_applies_once_and_never_after_a_later_one(gate, make, clock):
    first, second = make(), make()
    gate.check(second, clock(), tracking=True)
    for command in (second, first):
        with pytest.raises(Refused, match=r"repeated|out of order"):
            gate.check(command, clock(), tracking=True)
    gate.check(make(), clock(), tracking=True)


def test_a_restarted_source_counts_from_one_again_but_only_when_the_arm_holds(gate, make, clock):
    make.sequence = 41
    gate.check(make(), clock(), tracking=True)
    clock.now_s += 1.0
    restarted = make(sequence=1)
    with pytest.raises(Refused):
        gate.check(restarted, clock(), tracking=True)
    gate.check(restarted, clock(), tracking=False)


def test_a_command_without_observation_passes(gate, make, clock):
    gate.check(make(observation_s=None), clock(), tracking=False)


def test_a_restart_is_believed_from_any_number_if_it_is_newer(gate, make, clock):
    """Regression pinned: the first command of a new source can be lost while DDS still looks for it."""
    make.sequence = 41
    gate.check(make(), clock(), tracking=True)
    clock.now_s += 1.0
    with pytest.raises(Refused, match="out of order"):
        gate.check(make(sequence=0), clock(), tracking=False)
    gate.check(make(sequence=3), clock(), tracking=False)


def test_a_flood_is_refused_and_jitter_is_not(gate, make, clock):
    for gap_s in (0.0, 0.3, 0.1, 0.2, 0.2, 0.29, 0.11):
        clock.now_s += gap_s
        gate.check(make(), clock(), tracking=True)
    clock.now_s += 0.02
    with pytest.raises(Refused, match="5 per second") as refusal:
        gate.check(make(), clock(), tracking=True)
    assert refusal.value.kind == "rate"


def test_a_flood_moves_the_arm_no_faster_than_the_contract_in_the_long_run(
    gate, make, clock, contract
):
    """Regression pinned: two commands in every 0.9 periods passed for ever, which is twice the contract's rate."""
    passed, seconds = 0, 20
    for _ in range(50 * seconds):
        clock.now_s += 0.02
        try:
            gate.check(make(), clock(), tracking=True)
        except Refused:
            continue
        passed += 1
    assert passed <= seconds * contract.control_rate_hz * 1.1 + 2


@pytest.mark.parametrize("behind", [500, 1, 0])
@pytest.mark.parametrize("left", ["first", "second"])
def test_of_two_processes_of_one_name_neither_is_obeyed_until_one_ends(
    gate, make, clock, behind, left
):
    """Regressions pinned: a refusal made the arm hold, and the second process passed for a restarted first one;
    then the one with the higher numbers drove on, whichever graph it belonged to."""
    numbers = {"first": 1000, "second": 1000 - behind}
    passed, said, tracking = [], [], False
    for turn in range(30):
        for who in numbers if turn < 20 else [left]:
            clock.now_s += 0.1 if turn < 20 else 0.2
            numbers[who] += 1
            try:
                gate.check(make(sequence=numbers[who]), clock(), tracking=tracking)
            except Refused as refusal:
                said.append(str(refusal))
                tracking = False
            else:
                passed.append(turn)
                tracking = True
    assert [turn for turn in passed if turn < 20] == [0]
    assert passed[1:] == list(range(passed[1], 30))
    assert passed[1] <= 23
    assert all("two processes command as 'policy'" in text for text in said[:39])


def test_a_command_that_was_refused_by_the_rate_is_not_applied_when_it_comes_again(
    gate, make, clock
):
    """Regression pinned: only applied numbers were remembered."""
    for _ in range(2):
        gate.check(make(), clock(), tracking=True)
    flooding = make()
    with pytest.raises(Refused, match="per second"):
        gate.check(flooding, clock(), tracking=True)
    clock.now_s += 0.14
    with pytest.raises(Refused, match="repeated"):
        gate.check(flooding, clock(), tracking=False)


def test_every_source_has_numbers_of_its_own(gate, make, clock):
    make.sequence = 41
    gate.check(make(), clock(), tracking=True)
    gate.check(make(source="operator", sequence=1), clock(), tracking=True)
