# SPDX-License-Identifier: Apache-2.0
"""What is measured while an episode is recorded is what its judge finds in the file afterwards."""

import math

import numpy as np
import pytest
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros.clock import header_stamp, to_seconds, to_stamp
from lapa_ros.episode_file import EpisodeFile, Stream
from lapa_ros.recording_quality import SETTLE_S, Quality, QualityMeter
from lapa_ros.schema import schema_text
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from lapa_core.data.judge import judge
from lapa_core.data.recorded_rows import RowLimits

TYPES = {
    "/camera/front/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/delta": "lapa_msgs/msg/EndEffectorDelta",
    "/arm_state": "lapa_msgs/msg/ArmState",
}
CAMERA, DELTA, ARM = TYPES
START_S = 1.7e9
ANY = RowLimits(
    max_staleness_s=9.0, max_gap_s=9.0, max_rate_deviation=1.0, max_still_share=1.0, max_saturated_share=1.0
)  # fmt: skip


def picture(stamp_s):
    message = CompressedImage(format="jpeg")
    message.header.stamp = to_stamp(stamp_s)
    return message


def arm_state(stamp_s, contract, last, applied):
    message = ArmState(last_applied_source="operator" if last else "", last_applied_sequence=last, applied=applied,
                       contract_hash=contract.hash)  # fmt: skip
    message.header.stamp = to_stamp(stamp_s)
    message.measured_pose.orientation.w = 1.0
    return message


def delta(stamp_s, contract, sequence, x_m, age_s):
    """Return a delta that answers an observation of an age, or none where that is 0."""
    message = DeltaMsg(
        source="operator", sequence=sequence, gripper=1.0, contract_hash=contract.hash
    )
    message.header.stamp = to_stamp(stamp_s)
    message.observation_stamp = to_stamp(stamp_s - age_s if age_s else 0.0)
    message.translation.x = float(x_m)
    return message


def episode(contract, seed):
    """Return (arrival [s], topic, message) of 12 s: a pause, refused deltas, some at the cap and some of zero.

    With seed 3 the arm says so seldom what it does that it applies two deltas in between, and refuses none.
    """
    rng = np.random.default_rng(seed)
    arm_period_s, refused = (0.05, 9) if seed < 3 else (0.45, 1000)
    events = [
        (START_S + t + rng.uniform(0, 0.05), CAMERA, picture(START_S + t))
        for t in np.arange(0, 12, 0.05)
    ]
    commands = [
        (t, number, x_m)
        for number, (t, x_m) in enumerate(
            zip(
                np.arange(0.5, 11, 0.2),
                rng.choice([0.0, 0.01, contract.max_translation_m], 53),
                strict=True,
            ),
            start=1,
        )
        if not 4.0 < t < 4.0 + 0.4 * seed
    ]
    for t, n, x_m in commands:
        age_s = n % 2 * rng.uniform(0.01, 0.2)
        message = delta(START_S + t, contract, n, x_m, age_s)
        events.append((START_S + t + 0.002, DELTA, message))
    taken = [(t, n) for t, n, _ in commands if n % refused]
    for t in np.arange(0.01, 12, arm_period_s):
        past = [n for at_s, n in taken if at_s + 0.01 <= t]
        state = arm_state(START_S + t, contract, past[-1] if past else 0, len(past))
        events.append((START_S + t + rng.uniform(0, 0.02), ARM, state))
    return sorted(events, key=lambda event: event[0])


def measure(events, contract, needed=()):
    """Return a meter that was told of these messages, and asked in between as the recorder's timer asks it."""
    meter = QualityMeter(list(TYPES), needed, contract)
    meter.begin(START_S)
    asked_s = START_S
    for now_s, topic, message in events:
        tell(meter, now_s, topic, message)
        if now_s - asked_s > 0.5:
            asked_s = now_s
            meter.quality(now_s)
    return meter


def tell(meter, now_s, topic, message):
    stream = list(TYPES).index(topic)
    meter.heard(stream, now_s)
    if topic == CAMERA:
        meter.frame(stream, to_seconds(header_stamp(serialize_message(message))))
    elif topic == DELTA:
        meter.delta(message, now_s)
    else:
        meter.arm_state(message, now_s)


def written(events, contract, folder):
    """Return the path of a recording of these messages."""
    facts = {"instruction": "push", "outcome": "success", "contract_name": contract.name,
             "contract_hash": contract.hash}  # fmt: skip
    streams = [Stream(topic=t, type_name=k, schema=schema_text(k)) for t, k in TYPES.items()]
    file = EpisodeFile(folder, "ep_1", streams, facts, queue_size=4096, flush_period_s=1.0)
    for now_s, topic, message in events:
        file.write(list(TYPES).index(topic), serialize_message(message), round(now_s * 1e9))
    return file.finish(lambda: {})


@pytest.mark.parametrize("seed", range(4))
def test_it_tells_what_the_judge_will_find(contract, tmp_path, seed):
    events = episode(contract, seed)
    live = measure(events, contract).quality(events[-1][0] + SETTLE_S)
    report = judge(written(events, contract, tmp_path), contract=contract, limits=ANY).report
    assert report.accepted, report.line()
    assert live.rows == report.rows.rows > 30
    assert live.row_rate_hz == pytest.approx(report.rows.rate_hz)
    assert live.row_gap_s == pytest.approx(report.rows.max_gap_s)
    assert live.frame_age_p95_s == pytest.approx(report.rows.staleness_p95_s, abs=1e-6)
    assert (live.still_share, live.saturated_share) == (report.still_share, report.saturated_share)
    assert 0 < live.still_share < 1
    assert 0 < live.saturated_share < 1


def test_deltas_before_the_first_frame_are_counted_apart_as_the_judge_leaves_them_out(
    contract, tmp_path
):
    events = [
        e for e in episode(contract, 0)
        if e[1] != CAMERA or to_seconds(e[2].header.stamp) > START_S + 0.8
    ]  # fmt: skip
    live = measure(events, contract).quality(events[-1][0] + SETTLE_S)
    report = judge(written(events, contract, tmp_path), contract=contract, limits=ANY).report
    assert report.accepted, report.line()
    assert (live.unseen, live.rows) == (report.rows.dropped, report.rows.rows)
    assert live.unseen == 2
    assert live.age_max_s < 0.1
    assert live.frame_age_p95_s == pytest.approx(report.rows.staleness_p95_s, abs=1e-6)


def test_a_delta_that_comes_twice_is_one_row(contract):
    events = episode(contract, 0)
    twice = sorted(
        [*events, *((s + 0.6, t, m) for s, t, m in events if t == DELTA)], key=lambda e: e[0]
    )
    once = measure(events, contract).quality(events[-1][0] + 1.0)
    assert measure(twice, contract).quality(events[-1][0] + 1.0) == once


def test_a_camera_that_stands_still_makes_old_frames_and_a_silence(contract):
    events = episode(contract, 0)
    frozen_s = START_S + 6.0
    events = [e for e in events if e[1] != CAMERA or to_seconds(e[2].header.stamp) < frozen_s]
    quality = measure(events, contract, needed=[CAMERA]).quality(START_S + 12.0)
    (topic,) = quality.topics.values()
    assert (topic.rate_hz, topic.silent_s) == (0.0, pytest.approx(6.0, abs=0.1))
    assert topic.gap_s == topic.silent_s
    assert quality.age_max_s == pytest.approx(4.9, abs=0.2)


def test_rates_are_those_of_the_last_while(contract):
    meter = QualityMeter(["/a", "/b"], ["/b"], contract)
    meter.begin(START_S)
    for tick in range(300):
        now_s = START_S + 0.02 * tick
        meter.heard(1, now_s) if tick >= 150 or tick % 5 == 0 else None
        if tick % 25 == 0:
            quality = meter.quality(now_s)
    assert list(quality.topics) == ["/b"]
    assert quality.topics["/b"].rate_hz == pytest.approx(50.0, rel=0.05)
    assert quality.topics["/b"].gap_s == pytest.approx(0.1, abs=0.001)


def test_a_new_episode_begins_with_nothing(contract):
    meter = measure(episode(contract, 0), contract, needed=[CAMERA])
    meter.begin(START_S + 20.0)
    quality = meter.quality(START_S + 21.0)
    assert (quality.rows, quality.topics[CAMERA].rate_hz) == (0, 0.0)
    assert math.isnan(quality.still_share)


def test_figures_survive_the_way_through_text(contract):
    quality = measure(episode(contract, 1), contract, needed=[CAMERA, ARM]).quality(START_S + 12.0)
    text = {name: str(value) for name, value in quality.to_figures().items()}
    assert Quality.from_figures({"saved": "3", **text}) == quality


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_stamp_of_a_serialized_message(order):
    stamp = (1_700_000_000).to_bytes(4, order, signed=True) + (250_000_000).to_bytes(4, order)
    cdr = bytes([0, 1 if order == "little" else 0, 0, 0]) + stamp
    assert to_seconds(header_stamp(cdr)) == 1_700_000_000.25
