# SPDX-License-Identifier: Apache-2.0
"""Good commands, and small changes to them."""

from dataclasses import replace

from lapa_ros.arm_gate import Command


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
