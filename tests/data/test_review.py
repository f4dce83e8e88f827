# SPDX-License-Identifier: Apache-2.0
"""The review page: what it shows, what it writes, what it refuses."""

import io
import json
import threading

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from lapa_core.data.curation import CURATION_NAME, Mark, load_marks
from lapa_core.data.export import export_recordings
from lapa_core.data.review.run import DataReviewConfig
from lapa_core.data.review.server import Review, ReviewPage
from lapa_core.data.review.sheet import PICTURES, SIDE_PX
from lapa_core.errors import DataError


@pytest.fixture
def folder(tmp_path, plan):
    recordings = tmp_path / "recordings"
    (recordings / "monday").mkdir(parents=True)
    plan.write(recordings / "a.mcap")
    plan.write(recordings / "monday/b.mcap")
    plan.pause_after = {4: 3.0}
    plan.write(recordings / "monday/c.mcap")
    plan.contract_name = "no_such_robot"
    plan.write(recordings / "d.mcap")
    return recordings


@pytest.fixture
def review(folder):
    review = Review(DataReviewConfig(recordings=folder))
    review.read_all()
    return review


@pytest.fixture
def client(review):
    return TestClient(ReviewPage(review).application("127.0.0.1"), base_url="http://127.0.0.1:8711")


def test_every_recording_is_shown_with_its_faults(client):
    state = client.get("/episodes").json()
    facts = {one["episode"]: one for one in state["episodes"]}
    assert state["total"] == 4
    assert list(facts) == ["a.mcap", "d.mcap", "monday/b.mcap", "monday/c.mcap"]
    assert facts["a.mcap"]["refusals"] == []
    assert facts["a.mcap"]["rows"] == 10
    assert facts["a.mcap"]["duration_s"] == pytest.approx(2.15, abs=0.06)
    assert "3.20 s lie between" in facts["monday/c.mcap"]["refusals"][0]
    assert "no_such_robot" in facts["d.mcap"]["refusals"][0]
    assert "Review of recordings" in client.get("/").text


def test_the_strip_goes_from_the_first_to_the_last_picture(client, stamps):
    picture = np.asarray(Image.open(io.BytesIO(client.get("/strip/monday/b.mcap").content)))
    assert picture.shape == (SIDE_PX, PICTURES * SIDE_PX, 3)
    numbers = [stamps.read(part) for part in np.split(picture, PICTURES, axis=1)]
    assert numbers[0] == 0
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == round(2.2 * 20) - 1


def test_decisions_are_written_and_obeyed(client, folder, tmp_path):
    dropped = client.post(
        "/decide", json={"episode": "a.mcap", "keep": False, "note": "shaky"}
    ).json()
    assert dropped["refusals"][0] == "dropped by a reviewer"
    assert dropped["rows"] == 10  # still shown as it was recorded
    trimmed = client.post("/decide", json={"episode": "monday/c.mcap", "last_s": 0.9}).json()
    assert trimmed["refusals"] == []
    assert trimmed["rows"] == 4
    first_s, last_s = trimmed["deltas_s"]
    assert (first_s, last_s) == pytest.approx((0.13, 0.13 + 9 * 0.2 + 3.0), abs=2e-3)

    assert load_marks(folder) == {
        "a.mcap": Mark(episode="a.mcap", keep=False, note="shaky"),
        "monday/c.mcap": Mark(episode="monday/c.mcap", last_s=0.9),
    }
    reports = export_recordings(folder, tmp_path / "set")
    assert [r.path.name for r in reports if r.accepted] == ["b.mcap", "c.mcap"]
    kept = client.post("/decide", json={"episode": "a.mcap"}).json()
    assert kept["refusals"] == []


@pytest.mark.parametrize("start_s", [1000.0, 1000.00004, 1000.00047, 1.79e9 + 0.1237])
def test_a_trim_at_the_times_that_the_page_offers_keeps_every_row(tmp_path, plan, start_s):
    plan.start_s, delta = start_s, plan.delta
    plan.delta = lambda step, stamp_s: delta(step, stamp_s + 0.00037 * step)
    plan.write(tmp_path / "a.mcap")
    review = Review(DataReviewConfig(recordings=tmp_path))
    review.read_all()
    first_s, last_s = review.facts()[0]["deltas_s"]
    trimmed = review.decide({"episode": "a.mcap", "first_s": first_s, "last_s": last_s})
    assert (trimmed["rows"], trimmed["trimmed"]) == (10, 0)


def test_an_older_decision_that_took_longer_to_judge_is_not_what_is_shown(
    review, folder, monkeypatch
):
    reading, decided, read = threading.Event(), threading.Event(), review._read

    def slowly(name):
        judged = read(name)
        if not reading.is_set():
            reading.set()
            decided.wait(0.5)
        return judged

    monkeypatch.setattr(review, "_read", slowly)
    first = threading.Thread(target=review.decide, args=({"episode": "a.mcap", "keep": False},))
    first.start()
    assert reading.wait(5.0)
    review.decide({"episode": "a.mcap"})
    decided.set()
    first.join()
    assert load_marks(folder)["a.mcap"].keep
    assert review.facts()[0]["mark"]["keep"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"episode": "../secret.mcap", "keep": False}, "no recording of"),
        ({"episode": "a.mcap", "first_s": -1}, "rows from -1"),
        ({"episode": "a.mcap", "color": 1}, "an object with"),
        ([], "send a JSON object"),
    ],
)
def test_requests_that_make_no_sense_are_refused(client, folder, body, reason):
    answer = client.post("/decide", content=json.dumps(body))
    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert not (folder / CURATION_NAME).exists()


def test_other_sites_cannot_decide(client, folder):
    drop = {"episode": "a.mcap", "keep": False}
    evil = {"origin": "http://evil.example"}
    assert client.post("/decide", json=drop, headers=evil).status_code == 403
    assert client.get("/episodes", headers={"host": "evil.example"}).status_code == 400
    assert not (folder / CURATION_NAME).exists()
    own = {"origin": "http://127.0.0.1:8711"}
    assert client.post("/decide", json=drop, headers=own).status_code == 200


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.mcap file"):
        Review(DataReviewConfig(recordings=tmp_path))
