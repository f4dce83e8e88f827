# SPDX-License-Identifier: Apache-2.0
"""Video and contact sheet."""

import io

import av
import numpy as np
import pytest
from lapa_ros.filming import Clip, write_contact_sheet, write_video
from PIL import Image


def jpeg(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((96, 96, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def clips():
    return [
        Clip(
            title="push the red block to the blue block",
            success=index == 0,
            jpegs=[jpeg(40), jpeg(200)],
            times_s=[0, 0.1],
        )
        for index in range(7)
    ]


def test_the_video_has_every_frame_and_lingers_on_the_outcome(clips, tmp_path):
    write_video(tmp_path / "episodes.mp4", clips, rate_hz=10.0)
    with av.open(str(tmp_path / "episodes.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(frames) == 7 * (2 + 8)
    assert frames[0].shape == (136, 96, 3)
    assert abs(int(frames[1][90, 48, 0]) - 200) < 10, "below the bar is the picture"


def test_the_contact_sheet_frames_success_green_and_failure_red(clips, tmp_path):
    write_contact_sheet(tmp_path / "sheet.png", clips)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    red, green = sheet[4, 80, 0], sheet[4, 80, 1]
    assert green > red
    second = 172 + 80
    assert sheet[4, second, 0] > sheet[4, second, 1]


def test_a_clip_without_frames_is_left_out(tmp_path):
    write_contact_sheet(tmp_path / "sheet.png", [Clip(title="nothing seen")])
    write_video(
        tmp_path / "episodes.mp4",
        [Clip(title="a", jpegs=[jpeg(1)], times_s=[0.0]), Clip(title="b")],
        10.0,
    )
    assert (tmp_path / "sheet.png").exists()
