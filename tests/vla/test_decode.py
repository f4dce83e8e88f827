# SPDX-License-Identifier: Apache-2.0
"""Decoding at fixed shapes gives what a full forward per token gives; it waits for nothing and nothing ends it."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaModel

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.vla.decode.choose import Sample, greedy, make_choose
from lapa_core.vla.decode.forced import forced_logits, next_positions
from lapa_core.vla.decode.plan import Prefix, round_up
from lapa_core.vla.decode.protocol import Prompt
from lapa_core.vla.decode.static import (
    DecodeOptions,
    decode_sequence,
    head_tokens,
    use_options,
)

WIDTH, TEXT, IMAGE = 32, 5, 4
HEADS = ("latent", "action")


class Toy(nn.Module):
    """Text, padded on the left, then an image of `IMAGE` positions; grouped-query attention of two layers."""

    def __init__(self, *, parallel=False, full_prefix=False, prompt=True):
        super().__init__()
        torch.manual_seed(0)
        self.llama = LlamaModel(
            LlamaConfig(
                vocab_size=20,
                hidden_size=WIDTH,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                initializer_range=0.3,
            )
        )
        self.latent = (4, 8)
        self.bins = ActionBins([np.linspace(0, 1, n + 1) for n in (6, 5, 3, 6, 2, 4, 2)])
        self.full_prefix = full_prefix
        self.keep_prompt = prompt
        self.image = nn.Linear(3, IMAGE * WIDTH)
        sizes = {"latent": (4, 8), "action": (7, 6)}
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(n, WIDTH) for name, (_, n) in sizes.items()}
        )
        self.outputs = nn.ModuleDict({name: nn.Linear(WIDTH, n) for name, (_, n) in sizes.items()})
        self.ask = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(k, WIDTH)) for name, (k, _) in sizes.items()}
            if parallel
            else {}
        )
        self.register_buffer("mask_AQ", torch.from_numpy(self.bins.mask))
        self.passes = []

    def prefix_embeddings(self, inputs, head):
        text = self.llama.embed_tokens(inputs["text"])
        image = self.image(inputs["image"]).unflatten(1, (IMAGE, WIDTH))
        return torch.cat([text, image], dim=1)

    def positions(self, inputs, head):
        return (self.visible(inputs, head).long().cumsum(dim=1) - 1).clamp_min(0)

    def visible(self, inputs, head):
        return nn.functional.pad(inputs["text"] != 0, (0, IMAGE), value=True)

    def prompt(self, inputs, head):
        return Prompt(inputs["text"], inputs["text"].shape[1]) if self.keep_prompt else None

    def queries(self, head):
        return dict(self.ask).get(head)

    def backbone(self, embeddings, positions, mask, cache):
        if self.passes is not None:
            self.passes.append(embeddings.shape[1])
        return self.llama(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def embed(self, head, ids, k):
        return self.tables[head](ids)

    def logits(self, head, hidden, k):
        logits = self.outputs[head](hidden)
        return logits if head == "latent" else logits.masked_fill(~self.mask_AQ[k], -torch.inf)


def inputs_of(batch, text=TEXT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 20, (batch, text), generator=generator)
    for row in range(batch):
        ids[row, : row % text] = 0
    return {"text": ids, "image": torch.rand(batch, 3, generator=generator)}


@torch.no_grad()
def full_forward(model, inputs, head, choose):
    """One whole forward, without a cache, for every token."""
    batch, tokens = len(inputs["text"]), head_tokens(model, head)
    ids = torch.zeros(batch, 0, dtype=torch.int64)
    for k in range(tokens):
        fed = torch.cat([ids, torch.zeros(batch, tokens - k, dtype=torch.int64)], dim=1)
        ids = torch.cat(
            [ids, choose(forced_logits(model, inputs, head, fed)[:, k])[:, None]], dim=1
        )
    return ids


def sampler(seed=3, **options):
    return Sample(torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("full_prefix", [False, True])
def test_equals_a_full_forward_per_token(head, parallel, full_prefix):
    model = Toy(parallel=parallel, full_prefix=full_prefix).eval()
    different = set()
    for batch, text in product((1, 3), (1, 5, 9)):
        inputs = inputs_of(batch, text)
        for choose in (lambda: greedy, sampler, lambda: sampler(temperature=0.5, top_k=3)):
            mine = decode_sequence(model, inputs, head, choose())
            assert mine.tolist() == full_forward(model, inputs, head, choose()).tolist()
            assert mine.dtype == torch.int64
            different |= {tuple(row) for row in mine.tolist()}
    assert len(different) > 10  # the toy's answers depend on what it is given


@pytest.mark.parametrize("head", HEADS)
def test_kept_prompts_change_nothing(head):
    keeps, forgets = Toy(), Toy(prompt=False)
    keeps.eval(), forgets.eval()
    for seed in (0, 1):
        first = inputs_of(2, seed=seed)
        for frame in range(3):
            inputs = first | {"image": torch.rand(2, 3) * (frame + 1)}
            mine = decode_sequence(keeps, inputs, head, greedy)
            assert mine.tolist() == decode_sequence(forgets, inputs, head, greedy).tolist()
    tokens = head_tokens(keeps, head)
    read, frame = [TEXT], [IMAGE] + [1] * (tokens - 1)
    assert keeps.passes == 2 * (read + 3 * frame)  # read again for another instruction only
    assert forgets.passes[0] == TEXT + IMAGE


def test_a_prompt_is_read_again_when_weights_have_changed():
    model = Toy().eval()
    inputs = inputs_of(2)
    decode_sequence(model, inputs, "latent", greedy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3)
    forced_logits(model, inputs, "latent", torch.zeros(2, 4, dtype=torch.int64)).sum().backward()
    for change in (
        optimizer.step,
        lambda: model.load_state_dict(Toy().state_dict()),
        lambda: model.outputs.update({"latent": nn.Linear(WIDTH, 8)}),
        lambda: setattr(model.llama.norm, "weight", nn.Parameter(torch.rand(WIDTH))),
    ):
        change()
        model.passes.clear()
        mine = decode_sequence(model, inputs, "latent", greedy)
        assert model.passes[0] == TEXT
        assert mine.tolist() == full_forward(model, inputs, "latent", greedy).tolist()
    model.passes.clear()
    decode_sequence(model, inputs, "latent", greedy)
    assert model.passes[0] == IMAGE


class Traffic(TorchDispatchMode):
    """Names the operations that bring numbers of the host to the device or wait for numbers of the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        moves = name == "_to_copy" and (kwargs or {}).get("device")
        if moves or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("choose", [greedy, sampler(temperature=0.7, top_k=4)])
@pytest.mark.parametrize("parallel", [False, True])
def test_no_traffic_with_the_host(choose, parallel):
    model = Toy(parallel=parallel).eval()
    for head in HEADS:
        with Traffic() as traffic:
            ids = decode_sequence(model, inputs_of(2), head, choose)
        assert traffic.found == []
    with Traffic() as traffic:
        ids[0, 0].item()
        ids.nonzero()
        ids.to("meta")
    assert traffic.found == ["_local_scalar_dense", "nonzero", "_to_copy"]


def test_decoding_needs_no_values():
    """On the meta device, where tensors have no values, whatever asks for one fails."""
    model = Toy().eval().to("meta")
    inputs = {name: value.to("meta") for name, value in inputs_of(2).items()}
    for head in HEADS:
        ids = decode_sequence(model, inputs, head, greedy)
        assert ids.shape == (2, head_tokens(model, head))
    # The control: on that device torch refuses to give a value away, with this exception of its own.
    with pytest.raises(NotImplementedError, match="no data"):
        ids.tolist()


def test_code_2_ends_nothing():
    """The release stops at its end-of-sequence id, 2, and returns 0 for what is left (facts/lapa.md 2.7)."""
    model = Toy().eval()
    with torch.no_grad():
        model.outputs["latent"].bias[2] += 1e4
    assert decode_sequence(model, inputs_of(2), "latent", greedy).tolist() == [[2] * 4] * 2
    with torch.no_grad():
        model.outputs["latent"].bias[2] -= 1e4
    model.outputs["latent"].forward = lambda hidden: torch.eye(8)[[2, 5]].expand(2, 8)
    assert decode_sequence(model, inputs_of(2), "latent", greedy).tolist() == [[2] * 4, [5] * 4]


def test_bins_that_a_dimension_has_not_are_never_drawn():
    model = Toy().eval()
    choose = sampler(temperature=100.0)
    inputs = inputs_of(64)
    drawn = torch.cat([decode_sequence(model, inputs, "action", choose) for _ in range(8)])
    assert drawn.amax(dim=0).tolist() == [n - 1 for n in model.bins.counts]


def test_draws_follow_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 3.0]]).expand(40_000, 4)
    share = torch.bincount(sampler(temperature=2.0)(logits), minlength=4) / len(logits)
    torch.testing.assert_close(share, (logits[0] / 2).softmax(dim=0), atol=0.01, rtol=0)
    top = sampler(top_k=2)(logits)
    assert set(top.tolist()) == {1, 3}
    again = sampler(top_k=2)(logits)
    assert torch.equal(top, again)


def test_temperature_0_is_greedy_and_nonsense_is_refused():
    generator = torch.Generator()
    assert make_choose(0.0, generator) is greedy
    one, same = make_choose(1.0, generator, top_k=5), Sample(generator, top_k=5)
    assert (one, hash(one)) == (same, hash(same))  # one CUDA graph for both
    assert one != Sample(torch.Generator(), top_k=5)
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ContractError, match="temperature"):
            make_choose(temperature, generator)
    with pytest.raises(ContractError, match="top_k"):
        Sample(generator, top_k=-1)


def test_positions_count_on_from_the_largest_of_all_axes():
    flat = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3]])
    assert next_positions(flat, 2).tolist() == [[3, 4], [4, 5]]
    axes = torch.stack([flat, flat + 5, flat])
    assert next_positions(axes, 2).tolist() == [[[8, 9], [9, 10]]] * 3


def test_inference_mode_may_come_and_go():
    model = Toy().eval()
    inputs = inputs_of(2)
    with torch.inference_mode():
        first = decode_sequence(model, inputs, "latent", greedy)
        other = decode_sequence(model, {n: v.clone() for n, v in inputs.items()}, "latent", greedy)
    again = decode_sequence(model, inputs, "latent", greedy)
    assert first.tolist() == other.tolist() == again.tolist()
    forced_logits(model, inputs, "latent", first).sum().backward()  # an answer may be a label


def test_few_batch_sizes_occur():
    visible = torch.tensor([[0, 1], [1, 1], [1, 0]], dtype=torch.bool)
    embeddings = torch.rand(3, 2, 5)
    for positions in (visible.long(), torch.stack([visible.long() + n for n in range(3)])):
        padded = round_up(Prefix(embeddings, positions, visible))
        assert torch.equal(padded.embeddings_BLD, embeddings[[0, 1, 2, 2]])
        assert torch.equal(padded.positions, positions[..., [0, 1, 2, 2], :])
        assert torch.equal(padded.visible_BL, visible[[0, 1, 2, 2]])
    sizes = [1, 2, 4, 4, 8, 8, 8, 8, 16]
    prefixes = [
        Prefix(t, t[..., 0], t[..., 0] > 0) for t in (torch.ones(n, 2, 1) for n in range(1, 10))
    ]
    assert [len(round_up(prefix).visible_BL) for prefix in prefixes] == sizes


def test_a_missing_head_is_named():
    model = Toy().eval()
    model.bins = None
    with pytest.raises(CheckpointError, match="no action head; `lapa vla finetune`"):
        decode_sequence(model, inputs_of(1), "action", greedy)


def test_what_is_kept_goes_with_the_model():
    model = Toy().eval()
    use_options(model, DecodeOptions(graphs=False))
    decode_sequence(model, inputs_of(1), "latent", greedy)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_two_graphs_are_compiled(monkeypatch):
    """Compiling takes minutes for a model of size; here the backend only counts and runs what it is given."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    plain, compiled = Toy().eval(), Toy().eval()
    compiled.passes = None  # a list that grows would be a reason to compile again
    use_options(compiled, DecodeOptions(compile=True))
    for seed in (0, 1):
        for batch in (1, 2):
            inputs = inputs_of(batch, seed=seed)
            mine = decode_sequence(compiled, inputs, "action", greedy)
            assert mine.tolist() == decode_sequence(plain, inputs, "action", greedy).tolist()
    assert counter.frame_count == 2  # the frame's, and one that all steps share


@pytest.mark.gpu
@pytest.mark.parametrize("head", HEADS)
def test_recorded_graphs_give_what_eager_runs_give(head):
    recorded, eager = Toy().eval().cuda(), Toy().eval().cuda()
    use_options(eager, DecodeOptions(graphs=False))
    for seed in range(3):
        inputs = {name: value.cuda() for name, value in inputs_of(seed + 1, seed=seed).items()}
        mine = decode_sequence(recorded, inputs, head, greedy)
        assert mine.tolist() == decode_sequence(eager, inputs, head, greedy).tolist()


@pytest.mark.gpu
def test_recorded_draws_go_on_in_the_stream():
    inputs = {name: value.cuda() for name, value in inputs_of(2).items()}

    def draws():
        model, choose = Toy().eval().cuda(), Sample(torch.Generator("cuda").manual_seed(3))
        return [decode_sequence(model, inputs, "action", choose).tolist() for _ in range(8)]

    first = draws()
    assert first == draws()
    assert len({str(ids) for ids in first}) > 1
