# SPDX-License-Identifier: Apache-2.0
"""The decoder over the LWM model: what is kept from frame to frame, and that nothing in it asks for a value."""

from __future__ import annotations

import pytest
import torch

from lapa_core.bench.vla import Eye
from lapa_core.bench.vla_models import INSTRUCTION, SECOND_INSTRUCTION, random_model
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.decode.static import Decoder
from lapa_core.vla.lwm.config import LWM_DEBUG


@pytest.mark.parametrize(("head", "tokens"), [("latent", 4), ("action", 7)])
def test_the_instruction_is_read_when_it_changes(head, tokens):
    model = random_model("lwm_debug", "cpu")
    eye, passes = Eye(model), []
    hook = model.layers[0].register_forward_pre_hook(lambda _, a: passes.append(a[0].shape[1]))
    prompt, decoder = LWM_DEBUG.max_text, Decoder()
    frame = eye.inputs(0)
    rest = model.visible(frame, head).shape[1] - prompt
    assert rest > LWM_DEBUG.frame_tokens
    for number, said in enumerate((INSTRUCTION, INSTRUCTION, SECOND_INSTRUCTION, INSTRUCTION)):
        passes.clear()
        inputs = eye.inputs(number, said)
        ids = decoder.decode(model, inputs, head, greedy)
        read = [prompt] if number != 1 else []
        assert passes == [*read, rest, *[1] * (tokens - 1)]
        assert ids.tolist() == Decoder().decode(model, inputs, head, greedy).tolist()
    hook.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_part_of_the_model_asks_for_a_value(dtype):
    """Tensors on the meta device have none; on a GPU, asking would break the recording."""
    model = random_model("lwm_debug", "cpu", dtype)
    inputs = {name: value.to("meta") for name, value in Eye(model).inputs(0).items()}
    model.to("meta")
    for head, tokens in (("latent", 4), ("action", 7)):
        assert Decoder().decode(model, inputs, head, greedy).shape == (1, tokens)
