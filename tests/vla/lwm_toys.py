# SPDX-License-Identifier: Apache-2.0
"""A toy LWM, its weights as the release stores them, and the release's arithmetic written out once more, plainly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.vla.lwm.config import LWM_DEBUG
from lapa_core.vla.lwm.model import LwmVla
from lapa_core.vla.lwm.release_names import release_tensors

TASKS = ("push the red block left", "put the star into the big green bowl", "go")
CODES = 8


def toy_bins():
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 0.02, (200, 7))
    actions[:, 5] = 0.0
    actions[:, 6] = rng.integers(0, 2, 200)
    return ActionBins.fit(actions, 16)


def toy_lwm(seed=0, **changes):
    """A toy model in evaluation mode whose weights are large enough for its logits to differ."""
    torch.manual_seed(seed)
    model = LwmVla.start(replace(LWM_DEBUG, **changes), TASKS)
    model.give_latent_head(4, CODES)
    model.give_action_head(toy_bins())
    for name, parameter in model.named_parameters():
        if not name.startswith("vqgan."):
            sharp = "q_proj" in name or "k_proj" in name
            torch.nn.init.normal_(parameter, std=1.0 if sharp else 0.3)
    return model.eval()


def toy_inputs(model, tasks=TASKS):
    side = model.config.image_px
    images = torch.rand(len(tasks), 3, side, side, generator=torch.Generator().manual_seed(1))
    return model.prepare(images, tasks)


def as_release(model):
    """The model's weights under the release's keys and in its layouts, layers stacked; float64."""
    state, heads = model.state_dict(), model.config.heads
    arrays = {}
    for place in release_tensors(model.config, CODES, action=True):
        ours = state[place.name].double().numpy()
        if place.layout == "rotary":  # undo the move of every head's even channels to the front
            rows, columns = ours.shape
            ours = ours.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
            ours = ours.reshape(rows, columns)
        arrays.setdefault(place.key, []).append(
            ours if ours.ndim == 1 or place.layout == "same" else ours.T
        )
    stacked = ("transformer", "h", "scan_decoder")
    return {key: np.stack(rows) if key[:3] == stacked else rows[0] for key, rows in arrays.items()}


def nearest_bf16(values):
    """Round to the nearest number with a mantissa of 8 bits, ties to even: bfloat16, by numpy alone."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def release_forward(params, embedded_QD, heads, theta, *, rounded, eps=1e-6):
    """One sequence without padding through the release's decoder, in float64; rotary pairs are neighbours."""
    stack = {
        key[3:]: rows
        for key, rows in params.items()
        if key[:3] == ("transformer", "h", "scan_decoder")
    }
    length, width = embedded_QD.shape
    head_dim = width // heads
    rates = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.outer(np.arange(length), rates)
    turn_Q1P = np.exp(1j * angles)[:, None]
    if rounded:
        angles = nearest_bf16(angles)
        turn_Q1P = (nearest_bf16(np.cos(angles)) + 1j * nearest_bf16(np.sin(angles)))[:, None]

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight

    def turned(x_QHW):
        pairs = x_QHW.reshape(length, heads, -1, 2)
        spun = (pairs[..., 0] + 1j * pairs[..., 1]) * turn_Q1P
        return np.stack([spun.real, spun.imag], axis=-1).reshape(x_QHW.shape)

    x = embedded_QD
    for layer in range(len(stack["attention_norm", "kernel"])):
        w = {key: rows[layer] for key, rows in stack.items()}
        normed = norm(x, w["attention_norm", "kernel"])
        q, k, v = (
            (normed @ w["attention", name, "kernel"]).reshape(length, heads, head_dim)
            for name in ("wq", "wk", "wv")
        )
        logits = np.einsum("qhw,khw->hqk", turned(q), turned(k)) / np.sqrt(head_dim)
        logits[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        read = np.einsum("hqk,khw->qhw", weights, v).reshape(length, width)
        x = x + read @ w["attention", "wo", "kernel"]
        normed = norm(x, w["ffn_norm", "kernel"])
        gate = normed @ w["feed_forward", "w1", "kernel"]
        inner = gate / (1 + np.exp(-gate)) * (normed @ w["feed_forward", "w3", "kernel"])
        x = x + inner @ w["feed_forward", "w2", "kernel"]
    return norm(x, params["transformer", "ln_f", "kernel"])
