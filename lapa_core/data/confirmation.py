# SPDX-License-Identifier: Apache-2.0
"""Which recorded deltas the arm really applied, told from what `arm_state` says and counts.

`arm_state` comes at its own rate and names only the last applied delta. It also counts them, so that
two deltas between two messages are both found, and one that the recording lost is noticed. The count
begins anew with every activation of the arm node, the name of the last one is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def applied_deltas(
    deltas: Sequence[Any], states: Sequence[Any] | None
) -> tuple[list[Any], list[str]]:
    """Return the deltas that the arm confirmed, in their order, and reasons to refuse the episode.

    Args:
        deltas: decoded `EndEffectorDelta` messages; a number met before is not applied again.
        states: decoded `ArmState` messages in the order of arrival; without any, every delta counts.
    """
    known: dict[tuple[str, int], Any] = {}
    for message in deltas:
        known.setdefault((message.source, message.sequence), message)
    if not states:
        return list(known.values()), []
    first = states[0]
    confirmed = {(first.last_applied_source, first.last_applied_sequence)} & known.keys()
    lost = 0
    for before, after in pairwise(states):
        key = (after.last_applied_source, after.last_applied_sequence)
        # A count that fell, or stands still while another delta is named, means that the arm node was
        # activated anew and counts from 0.
        named = (before.last_applied_source, before.last_applied_sequence)
        anew = after.applied < before.applied or (after.applied == before.applied and key != named)
        count = after.applied - (0 if anew else before.applied)
        if not count:
            continue
        same = before.last_applied_source == after.last_applied_source
        start = before.last_applied_sequence if same else 0
        new = [k for k in known if k[0] == key[0] and start < k[1] <= key[1]]
        if len(new) > count:  # which of them were applied cannot be told, but the last one was
            lost += count - 1
            new = [key] if key in known else []
        elif len(new) < count and confirmed:  # before the first, the recording had not begun
            lost += count - len(new)
        confirmed.update(new)
    reasons = [
        f"the arm applied {lost} deltas that the recording does not hold or that arm_state does not "
        "name; the rows would have holes"
    ]
    return [message for key, message in known.items() if key in confirmed], reasons if lost else []
