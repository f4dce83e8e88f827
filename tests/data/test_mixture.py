# SPDX-License-Identifier: Apache-2.0
"""Mixture files: what is loaded, and errors that name the line."""

import json

import numpy as np
import pytest

from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.mixture import load_mixture, open_corpus
from lapa_core.errors import DataError


def write(tmp_path, text):
    path = tmp_path / "mixture.yaml"
    path.write_text(text)
    return path


def test_mixture_is_loaded(tmp_path):
    path = write(
        tmp_path,
        "corpora:\n"
        "  - {data: robots, weight: 2, gap_s: 0.6}\n"
        "  - data: /elsewhere/people\n"
        "    gap_s: 2.4\n"
        "    gap_max_s: 3\n"
        "    instructions: people.jsonl\n"
        "    min_motion: 1.5\n",
    )
    robots, people = load_mixture(path)
    assert (robots.data, robots.weight, robots.gap_s) == (tmp_path / "robots", 2.0, 0.6)
    assert (robots.instructions, robots.min_motion) == (None, 0.0)
    assert str(people.data) == "/elsewhere/people"
    assert (robots.gap_max_s, people.gap_max_s) == (None, 3.0)
    assert (people.weight, people.gap_s, people.min_motion) == (1.0, 2.4, 1.5)
    assert people.instructions == tmp_path / "people.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("corpora: []", "line 1: corpora is .*at least one corpus"),
        ("corpus: [{data: a, gap_s: 1}]", "line 1: corpus is unknown"),
        ("corpora:\n- data: a\n  gap_s: 1\n  wieght: 2", "line 4: wieght is unknown.*'weight'"),
        ("corpora:\n- data: a\n  gap_s: 1\n  gap_s: 2", "line 4: gap_s is given twice"),
        ("corpora:\n- data: a", "line 2: the corpus has no gap_s"),
        ("corpora:\n- gap_s: 1", "line 2: the corpus has no data"),
        ("corpora:\n- data: a\n  gap_s: soon", "line 3: gap_s is 'soon'; a number"),
        ("corpora:\n- data: a\n  gap_s: -0.6", "line 3: gap_s is '-0.6'; a positive number"),
        ("corpora:\n- data: a\n  gap_s: .nan", "line 3: gap_s is '.nan'; a positive number"),
        ("corpora:\n- data: a\n  gap_s: true", "line 3: gap_s is 'true'; a number"),
        (
            "corpora:\n- data: a\n  gap_s: 1\n  weight: 0",
            "line 4: weight is '0'; a positive number",
        ),
        ("corpora:\n- data: 5\n  gap_s: 1", "line 2: data is '5'; a path"),
        ("corpora:\n- data: [a]\n  gap_s: 1", "line 2: data is 'a sequence'; a path"),
        ("corpora:\n- a\n- b", "line 2: the entry is 'a'; a mapping"),
        ("corpora: {", "cannot be read as a mixture"),
    ],
)
def test_errors_name_the_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_mixture(write(tmp_path, text))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a mixture"):
        load_mixture(tmp_path / "mixture.yaml")
    (tmp_path / "mixture.yaml").write_bytes(b"corpora: [{data: k\xe4se, gap_s: 1}]")
    with pytest.raises(DataError, match="cannot be read as a mixture"):
        load_mixture(tmp_path / "mixture.yaml")


@pytest.fixture
def index(tmp_path, stamps, write_video):
    """A clip that moves and one that does not, in an index with motion."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in/moves.mp4", stamps.clip(0, 20), np.arange(20) / 10)
    write_video(tmp_path / "in/still.mp4", np.repeat(stamps.clip(5, 1), 20, 0), np.arange(20) / 10)
    out = tmp_path / "index"
    build_index(IndexConfig(data=tmp_path / "in", out=out, workers=1, motion=True, progress=False))
    return out


def test_clips_that_hardly_move_are_left_out(tmp_path, index):
    text = "corpora: [{{data: index, gap_s: 0.5, min_motion: {}}}]"
    (config,) = load_mixture(write(tmp_path, text.format(3)))
    assert [clip.id for clip in open_corpus(config).index.clips] == ["moves.mp4"]
    (config,) = load_mixture(write(tmp_path, text.format(200)))
    with pytest.raises(DataError, match=r"no clip moves by 200.*liveliest"):
        open_corpus(config)
    build_index(IndexConfig(data=tmp_path / "in", out=index, workers=1, progress=False))
    with pytest.raises(DataError, match="motion was not measured"):
        open_corpus(config)


def test_instructions_of_the_mixture_take_the_place_of_the_index(tmp_path, index):
    line = {"video": "still.mp4", "instruction": "wait"}
    (tmp_path / "texts.jsonl").write_text(json.dumps(line))
    (config,) = load_mixture(
        write(tmp_path, "corpora: [{data: index, gap_s: 0.5, instructions: texts.jsonl}]")
    )
    assert [clip.instruction for clip in open_corpus(config).index.clips] == ["", "wait"]
    line["instruction"] = "wait\u2028here"  # a line of its own only to str.splitlines
    (tmp_path / "texts.jsonl").write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
    assert open_corpus(config).index.clips[1].instruction == line["instruction"]
    (tmp_path / "texts.jsonl").write_bytes(b'{"video": "still.mp4", "instruction": "k\xe4se"}')
    with pytest.raises(DataError, match="not UTF-8"):
        open_corpus(config)
    (tmp_path / "texts.jsonl").unlink()
    with pytest.raises(DataError, match=r"texts\.jsonl.* missing"):
        open_corpus(config)
