# SPDX-License-Identifier: Apache-2.0
"""`lapa_msgs/EndEffectorDelta` to the arm's `Command`, and an `EndEffectorDelta` of lapa_core to the message."""

from collections.abc import Sequence

from lapa_msgs.msg import EndEffectorDelta as DeltaMsg

from lapa_core.actions.delta import EndEffectorDelta
from lapa_ros.arm_gate import FRAME, Command
from lapa_ros.clock import is_zero, to_seconds, to_stamp

__all__ = ["FRAME", "to_command", "to_message"]


def to_message(
    delta: EndEffectorDelta, *, source: str, sequence: int, stamp_s: float, observation_s: float | None,
    contract_hash: str, bins: Sequence[int] = (),
) -> DeltaMsg:  # fmt: skip
    """Return the message of one delta; stamps are node clock times [s]."""
    message = DeltaMsg(
        source=source, sequence=sequence, contract_hash=contract_hash, gripper=delta.gripper
    )
    message.header.frame_id = FRAME
    message.header.stamp = to_stamp(stamp_s)
    if observation_s is not None:
        message.observation_stamp = to_stamp(observation_s)
    for vector, values in (
        (message.translation, delta.translation_m),
        (message.rotation, delta.rotation_rad),
    ):
        vector.x, vector.y, vector.z = values.tolist()
    message.bins = [int(index) for index in bins]
    return message


def to_command(message: DeltaMsg) -> Command:
    """Return what a message says, unchecked; the arm's gate checks it."""
    move, turn = message.translation, message.rotation
    return Command(
        values=(move.x, move.y, move.z, turn.x, turn.y, turn.z, message.gripper),
        source=message.source,
        sequence=message.sequence,
        stamp_s=to_seconds(message.header.stamp),
        observation_s=None
        if is_zero(message.observation_stamp)
        else to_seconds(message.observation_stamp),
        contract_hash=message.contract_hash,
        frame=message.header.frame_id,
    )
