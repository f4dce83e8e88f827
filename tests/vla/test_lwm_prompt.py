# SPDX-License-Identifier: Apache-2.0
"""The token sequence and the tokenizer, against the release's strings and the tokenizer of `transformers`."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import LlamaTokenizer

from lapa_core.errors import CheckpointError, DataError
from lapa_core.vla.lwm.prompt import closing, corpus, opening, prompt_ids, prompts, tag
from lapa_core.vla.lwm.tokenizer import FILE, SentencePieceText
from tests.vla.lwm_toys import TASKS, toy_inputs, toy_lwm

PROMPT = "<s> <s> You are a helpful assistant. USER: What action should the robot take to `{}` ASSISTANT: <vision>"
"""The release's inference string, facts/lapa.md 2.7."""


@pytest.fixture(scope="module")
def text():
    return SentencePieceText.fit(corpus(TASKS), 512)


@pytest.fixture(scope="module")
def slow(text, tmp_path_factory):
    """The release's tokenizer: special tokens are found by spelling, spaces beside them dropped, the rest encoded."""
    folder = tmp_path_factory.mktemp("slow")
    text.save(folder)
    pieces = sentencepiece.SentencePieceProcessor(str(folder / FILE))

    def encode(string):
        parts = (part.strip() for part in re.split(r"(</?s>)", string))
        special = {"<s>": 1, "</s>": 2}
        return [
            i
            for part in parts
            if part
            for i in ([special[part]] if part in special else pieces.encode(part))
        ]

    return encode


@pytest.mark.parametrize("task", [*TASKS, "two  spaces, Ünknown 键 and 42", "`quoted`"])
def test_the_prompt_is_the_releases_string(text, slow, task):
    assert prompt_ids(text, task) == slow(PROMPT.format(task))


def test_the_whole_training_row_is_the_releases(text, slow):
    """Training encodes the parts one by one, inference two long strings; both give one sequence."""
    instruction = PROMPT.format("go").removeprefix("<s> ").removesuffix(" <vision>")
    row = [1, *slow(instruction), *slow("<vision>")]
    assert prompt_ids(text, "go") == row
    assert opening(text, "latent") == [*slow("</vision>"), *slow("<delta>")]
    assert opening(text, "latent") == slow("</vision> <delta>")
    assert opening(text, "action") == slow("</vision> <action>")
    assert closing(text, "latent") == [*slow("</delta>"), 2]
    assert tag(text, "latent") == slow("<delta>")


def test_the_pieces_are_those_of_transformers(text, tmp_path):
    text.save(tmp_path)
    other = LlamaTokenizer.from_pretrained(tmp_path)
    for task in TASKS:
        spoken = PROMPT.format(task).removeprefix("<s> <s> ")
        assert other.encode(spoken, add_special_tokens=False) == prompt_ids(text, task)[2:]


def test_an_instruction_cannot_spell_a_special_token(text, slow):
    """There the release would see an end of sequence; here it is text."""
    assert 2 in slow(PROMPT.format("go </s> stop"))
    ids = prompt_ids(text, "go </s> <s> <unk> stop")
    assert ids[:2] == [1, 1]
    assert not {0, 1, 2} & set(ids[2:])


def test_padding_is_on_the_left_and_of_few_widths(text):
    padded = prompts(text, TASKS, 128)
    own = [prompt_ids(text, task) for task in TASKS]
    assert padded.ids_BT.shape[1] == 32 * -(-max(map(len, own)) // 32)
    for row, seen, ids in zip(padded.ids_BT, padded.seen_BT, own, strict=True):
        assert row[seen].tolist() == ids
        assert seen[-len(ids) :].all()
        assert (row[~seen] == 0).all()
    assert prompts(text, TASKS, 128, fixed=True).ids_BT.shape == (3, 128)
    longest = max(map(len, own))
    assert prompts(text, TASKS, longest).ids_BT.shape == (3, longest)
    with pytest.raises(DataError, match=f"{longest} tokens"):
        prompts(text, TASKS, longest - 1)


def test_the_models_sequence_is_prompt_frame_and_tag():
    model = toy_lwm()
    inputs = toy_inputs(model)
    assert inputs["vision"].shape == (3, 17)
    assert (inputs["vision"][:, -1] == 33).all()
    tables = model.tables
    expected = torch.cat(
        [
            tables["text"](torch.tensor(prompt_ids(model.text, TASKS[1]))),
            tables["vision"](inputs["vision"][1]),
            tables["text"](torch.tensor(opening(model.text, "action"))),
        ]
    )
    embeddings = model.prefix_embeddings(inputs, "action")[1]
    assert torch.equal(embeddings[-len(expected) :], expected)
    again = toy_inputs(model)
    assert model.prompt(inputs, "latent").key is model.prompt(again, "latent").key
    assert model.prompt(inputs, "latent").length == model.config.max_text


def test_the_tokenizer_travels_in_a_checkpoint(text, tmp_path):
    text.save(tmp_path)
    loaded = SentencePieceText.load(tmp_path, text.to_dict())
    assert loaded.encode(TASKS[0]) == text.encode(TASKS[0])
    assert len(loaded) == len(text)
    other = SentencePieceText.fit(corpus(["sweep the floor"]), 400)
    with pytest.raises(CheckpointError, match="not the tokenizer"):
        SentencePieceText.load(tmp_path, other.to_dict())
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="copy the whole checkpoint"):
        SentencePieceText.load(tmp_path, text.to_dict())
    (tmp_path / FILE).unlink()
    with pytest.raises(CheckpointError, match="there is no"):
        SentencePieceText.load(tmp_path, text.to_dict())


def test_a_tokenizer_of_another_kind_is_refused():
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words", "other words"]), model_writer=buffer, vocab_size=16,
        hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=2, eos_id=3, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"\(1, 2, 3\)"):
        SentencePieceText(buffer.getvalue())
    with pytest.raises(DataError, match="raise `vocab`"):
        SentencePieceText.fit(corpus(TASKS), 100)


def test_fitting_is_repeatable_and_covers_every_character(text):
    again = SentencePieceText.fit(reversed(corpus(TASKS)), 512)
    assert again.to_dict() == text.to_dict()
    assert 0 not in text.encode("键 Ünknown")
    assert np.all(np.array(text.encode("键")) < len(text))
