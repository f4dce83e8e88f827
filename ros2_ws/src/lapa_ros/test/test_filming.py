# SPDX-License-Identifier: Apache-2.0
"""Video and contact sheet."""

import io

import av
import numpy as np
import pytest
from lapa_ros.filming import Clip, Film, write_contact_sheet, write_video
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


def test_a_film_keeps_the_frames_of_its_first_episodes_only():
    """Regression pinned: every episode was kept in memory, up to ten thousand of them."""
    film = Film(most=2)
    for episode in range(3):
        film.add(b"between", episode * 10.0 - 1.0)
        film.begin(str(episode), episode * 10.0)
        film.add(b"before", episode * 10.0 - 0.5)
        film.add(b"in", episode * 10.0 + 0.5)
        film.end(success=episode == 1)
    assert [(c.title, c.success, c.jpegs, c.times_s) for c in film.clips] == [
        ("0", False, [b"in"], [0.5]),
        ("1", True, [b"in"], [0.5]),
    ]


def test_an_episode_that_never_ended_is_not_in_the_film():
    film = Film(most=2)
    film.begin("broken", 0.0)
    film.begin("whole", 1.0)
    film.end(success=True)
    film.end(success=False)
    assert [clip.title for clip in film.clips] == ["whole"]


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
