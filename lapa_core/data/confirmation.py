# SPDX-License-Identifier: Apache-2.0
"""Which recorded deltas the arm really applied, told from what `arm_state` says and counts.

`arm_state` comes at its own rate and names only the last applied delta. It also counts them, so that
two deltas between two messages are both found, and one that the recording lost is noticed. The count
begins anew with every activation of the arm node, the name of the last one is kept. Where count, names
and the sequence numbers of the recorded deltas leave more than one possibility, the episode is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Key = tuple[str, int]
"""Source and sequence number of a delta."""


def applied_deltas(
    deltas: Sequence[Any], states: Sequence[Any] | None
) -> tuple[list[Any], list[str]]:
    """Return the deltas that the arm confirmed, in their order, and reasons to refuse the episode.

    Args:
        deltas: decoded `EndEffectorDelta` messages in the order of arrival; a number met before is not applied again.
        states: decoded `ArmState` messages in the order of arrival; without any, every delta counts.
    """
    known: dict[Key, Any] = {}
    for message in deltas:
        known.setdefault((message.source, message.sequence), message)
    if not states:
        return list(known.values()), []
    search = _Search(list(known), _named(states[0]))
    for before, after in pairwise(states):
        # A count that fell, or stands still while another delta is named, means that the arm node was
        # activated anew and counts from 0.
        key, other = _named(after), _named(after) != _named(before)
        anew = after.applied < before.applied or (after.applied == before.applied and other)
        count = after.applied - (0 if anew else before.applied)
        if count or (other and key[1]):  # counted from 0, and named what it applied before that
            search.advance(key, max(count, 1), anew)
    reasons = [
        f"the arm applied {search.lost} deltas that the recording does not hold or that arm_state does not "
        "name; the rows would have holes"
    ]
    return [known[key] for key in search.confirmed], reasons if search.lost else []


def _named(state: Any) -> Key:
    return state.last_applied_source, state.last_applied_sequence


class _Search:
    """Walks through the recorded deltas as the arm's messages name them.

    Args:
        keys: every recorded delta in the order of arrival.
        first: the last delta that the arm had applied at its first message.
    """

    def __init__(self, keys: list[Key], first: Key) -> None:
        self._keys = keys
        self._place = {key: place for place, key in enumerate(keys)}
        self._unrecorded = _unrecorded(keys)
        self._reached = self._place.get(first, -1)
        self.confirmed: list[Key] = [first] if first in self._place else []
        self.lost = 0

    def advance(self, key: Key, count: int, anew: bool) -> None:
        """Confirm the `count` deltas of which `key` is the last, or add to what is lost.

        Before the first confirmed one nothing is lost: the recording had not begun. An arm that counts anew (`anew`)
        may have applied others before.
        """
        place = self._place.get(key, -1)
        if place <= self._reached:  # not recorded, or a number that was met before
            self.lost += count if self.confirmed else 0
            return
        others = self._keys[self._reached + 1 : place]
        if count > 1 and self._has_unrecorded(place):
            self.lost += count - 1
        elif len(others) == count - 1:
            self.confirmed += others
        elif count > 1 and (self.confirmed or len(others) > count - 1):
            self.lost += count - 1
        elif anew and self.confirmed:
            self.lost += 1
        self.confirmed.append(key)
        self._reached = place

    def _has_unrecorded(self, place: int) -> bool:
        """Return whether a delta that was not recorded may lie between the last confirmed one and a place."""
        return any(start < place and stop > self._reached for start, stop in self._unrecorded)


def _unrecorded(keys: Sequence[Key]) -> list[tuple[int, int]]:
    """Return the places between which numbers of one source are missing."""
    spans, last = [], dict[str, tuple[int, int]]()
    for place, (source, number) in enumerate(keys):
        before, before_place = last.get(source, (number - 1, place))
        if number != before + 1:
            spans.append((before_place, place))
        last[source] = number, place
    return spans
