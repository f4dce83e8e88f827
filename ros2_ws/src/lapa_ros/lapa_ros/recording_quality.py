# SPDX-License-Identifier: Apache-2.0
"""What the open episode is like so far: rates, silences, ages, stillness, saturation. No rclpy.

By the rules of `lapa data export`, over the deltas that the arm has confirmed until now. It is there for an operator
to see in time; the verdict stays with the judge, who reads the whole file.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from lapa_core.data.confirmation import applied_deltas
from lapa_core.data.liveliness import at_cap, stands_still
from lapa_core.robot.contract import RobotContract
from lapa_ros.clock import is_zero, to_seconds

RATE_WINDOW_S = 2.0
"""Rates are those of this last while [s]."""
SETTLE_S = 0.3
"""A delta, or the frame before it, may arrive this much later than the arm state that confirms it [s]."""
KEEP_S = 5.0
"""A delta that no arm state has confirmed for so long was not applied [s]."""
ROUNDING_S = 1e-6
"""Two stamps of one instant may differ by so much where one of them went through a float [s]."""
STAMPS = 512
"""Stamps that are remembered of each picture topic and of arm_state: seconds of them [1]."""


@dataclass(frozen=True, kw_only=True)
class TopicQuality:
    """How one topic comes."""

    rate_hz: float
    """Messages per second, of the last `RATE_WINDOW_S` [Hz]."""
    gap_s: float
    """Longest time without a message since the episode began, the present silence included [s]."""
    silent_s: float
    """Time since the last message [s]."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """An episode so far. What cannot be told yet is NaN."""

    rows: int
    """Deltas that the arm has applied, but for those below."""
    unseen: int = 0
    """Those of which the recording holds no earlier frame or measured pose: the first ones."""
    row_rate_hz: float = float("nan")
    """Their median rate [Hz]."""
    row_gap_s: float = float("nan")
    """Longest time between two of them [s]."""
    frame_age_p95_s: float = float("nan")
    """95th percentile of the age of the newest frame of each camera at their observation [s]."""
    age_max_s: float = float("nan")
    """Oldest frame or measured pose at any of them [s]."""
    still_share: float = float("nan")
    """Share of them that move nothing."""
    saturated_share: float = float("nan")
    """Share of them at the contract's caps."""
    topics: dict[str, TopicQuality] = field(default_factory=dict)
    """The topics that an episode needs."""

    def to_figures(self) -> dict[str, float]:
        """Return every figure under a name; one of a topic is called `<topic> <name>`."""
        figures = asdict(self)
        for topic, values in figures.pop("topics").items():
            figures |= {f"{topic} {name}": value for name, value in values.items()}
        return figures

    @classmethod
    def from_figures(cls, figures: Mapping[str, str]) -> Quality:
        """Return what `to_figures` gave, from text; other names are passed over.

        Raises:
            KeyError, ValueError: a figure is missing or no number.
        """
        names = {item.name for item in fields(cls)} - {"rows", "unseen", "topics"}
        topics = [key.split()[0] for key in figures if key.endswith(" rate_hz")]
        return cls(
            rows=int(figures["rows"]),
            unseen=int(figures["unseen"]),
            topics={
                topic: TopicQuality(
                    **{
                        item.name: float(figures[f"{topic} {item.name}"])
                        for item in fields(TopicQuality)
                    }
                )
                for topic in topics
            },
            **{name: float(figures[name]) for name in names},
        )


class QualityMeter:
    """Is told of every message of an episode, and measures. Costs microseconds a message, except in `quality`."""

    def __init__(self, topics: Sequence[str], needed: Iterable[str], contract: RobotContract):
        """Measure recorded `topics`; the rates and silences of those that are `needed`."""
        self._topics, self._contract = list(topics), contract
        self._needed = [self._topics.index(topic) for topic in needed]
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """Forget everything: an episode begins [s]."""
        self._counts = [0] * len(self._topics)
        self._last_s = [now_s] * len(self._topics)
        self._gap_s = [0.0] * len(self._topics)
        self._marks = deque([(now_s, self._counts.copy())])
        self._frame_s: dict[int, deque[float]] = {}
        self._pose_s: deque[float] = deque(maxlen=STAMPS)
        self._states: list[tuple[float, Any]] = []
        self._deltas: dict[tuple[str, int], tuple[float, Any]] = {}
        self._unseen = 0
        self._met: set[tuple[str, int]] = set()
        self._actions, self._observed_s = array("d"), array("d")
        self._frame_ages_s, self._pose_ages_s = array("d"), array("d")

    def heard(self, stream: int, now_s: float) -> None:
        """Count one message, whatever it is."""
        self._counts[stream] += 1
        self._gap_s[stream] = max(self._gap_s[stream], now_s - self._last_s[stream])
        self._last_s[stream] = now_s

    def frame(self, stream: int, stamp_s: float) -> None:
        """Take note of a picture of a camera of the contract."""
        self._frame_s.setdefault(stream, deque(maxlen=STAMPS)).append(stamp_s)

    def arm_state(self, state: Any, now_s: float) -> None:
        """Take note of an `ArmState`."""
        self._pose_s.append(to_seconds(state.header.stamp))
        self._states.append((now_s, state))

    def delta(self, message: Any, now_s: float) -> None:
        """Take note of an `EndEffectorDelta`; a number met before is not applied again."""
        key = message.source, message.sequence
        if key not in self._met:
            self._met.add(key)
            self._deltas[key] = now_s, message

    def quality(self, now_s: float) -> Quality:
        """Return what the episode is like at `now_s` [s]."""
        self._settle(now_s)
        observed_s = np.sort(np.array(self._observed_s))
        rows, topics = len(observed_s), self._topic_quality(now_s)
        if not rows:
            return Quality(rows=0, unseen=self._unseen, topics=topics)
        actions_T7 = np.array(self._actions).reshape(rows, 7)
        gaps_s = np.diff(observed_s)
        median_s = float(np.median(gaps_s)) if len(gaps_s) else 0.0
        frame_ages_s, pose_ages_s = np.array(self._frame_ages_s), np.array(self._pose_ages_s)
        return Quality(
            rows=rows,
            unseen=self._unseen,
            row_rate_hz=1 / median_s if median_s > 0 else float("nan"),
            row_gap_s=float(gaps_s.max()) if len(gaps_s) else float("nan"),
            frame_age_p95_s=float(np.percentile(frame_ages_s, 95))
            if len(frame_ages_s)
            else float("nan"),
            age_max_s=float(np.concatenate([frame_ages_s, pose_ages_s]).max()),
            still_share=float(stands_still(actions_T7).mean()),
            saturated_share=float(at_cap(actions_T7, self._contract).mean()),
            topics=topics,
        )

    def _topic_quality(self, now_s: float) -> dict[str, TopicQuality]:
        marks = self._marks
        marks.append((now_s, self._counts.copy()))
        while len(marks) > 2 and now_s - marks[1][0] >= RATE_WINDOW_S:
            marks.popleft()
        since_s, before = marks[0]
        span_s = max(now_s - since_s, 1e-9)
        return {
            self._topics[i]: TopicQuality(
                rate_hz=(self._counts[i] - before[i]) / span_s,
                gap_s=max(self._gap_s[i], now_s - self._last_s[i]),
                silent_s=now_s - self._last_s[i],
            )
            for i in self._needed
        }

    def _settle(self, now_s: float) -> None:
        """Take as rows what the arm has confirmed, `SETTLE_S` late."""
        settled = [state for heard_s, state in self._states if now_s - heard_s >= SETTLE_S]
        if len(settled) < 2:
            return
        del self._states[: len(settled) - 1]  # the last one is the first of the next ones
        known = [message for _, message in self._deltas.values()]
        for message in applied_deltas(known, settled)[0]:
            del self._deltas[message.source, message.sequence]
            self._add_row(message)
        self._deltas = {key: item for key, item in self._deltas.items() if now_s - item[0] < KEEP_S}

    def _add_row(self, message: Any) -> None:
        answered = message.observation_stamp
        observed_s = to_seconds(message.header.stamp if is_zero(answered) else answered)
        pose_age_s = _age_s(self._pose_s, observed_s)
        frame_ages_s = [_age_s(stamps_s, observed_s) for stamps_s in self._frame_s.values()]
        if not frame_ages_s or not math.isfinite(max(pose_age_s, *frame_ages_s)):
            self._unseen += 1
            return
        move, turn = message.translation, message.rotation
        self._actions.extend((move.x, move.y, move.z, turn.x, turn.y, turn.z, message.gripper))
        self._observed_s.append(observed_s)
        self._frame_ages_s.extend(frame_ages_s)
        self._pose_ages_s.append(pose_age_s)


def _age_s(stamps_s: Iterable[float], observed_s: float) -> float:
    """Return the age of the newest stamp at or before an observation [s]; inf where there is none."""
    return min(
        (max(observed_s - s, 0.0) for s in stamps_s if s <= observed_s + ROUNDING_S),
        default=float("inf"),
    )
