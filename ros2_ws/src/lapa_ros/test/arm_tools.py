# SPDX-License-Identifier: Apache-2.0
"""Good commands, and small changes to them."""

from dataclasses import replace

from lapa_ros.arm_gate import Command, CommandGate
from lapa_ros.arm_logic import ArmLogic
from lapa_ros.arm_sources import SourceArbiter


def make_logic(contract, arm, say=lambda *_: None, sources=("operator", "policy")):
    """Return the logic of an arm that moves to its poses at 1.2 rad/s and gives lower sources the arm after 1 s."""
    gate, arbiter = CommandGate(contract, max_command_age_s=0.15), SourceArbiter(sources, 1.0)
    return ArmLogic(contract, arm, gate, arbiter, say, 1.2)


class Commander:
    """Makes commands that an arm applies, unless a field is changed."""

    def __init__(self, contract, clock, source="policy"):
        self._contract, self._clock, self._source = contract, clock, source
        self.sequence = 0

    def __call__(self, **changes) -> Command:
        self.sequence += 1
        command = Command(
            values=(0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            source=self._source,
            sequence=self.sequence,
            stamp_s=self._clock(),
            observation_s=self._clock() - 0.01,
            contract_hash=self._contract.hash,
        )
        return replace(command, **changes)
