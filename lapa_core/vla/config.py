# SPDX-License-Identifier: Apache-2.0
"""Configurations of the policy model and of its two training stages. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from lapa_core.errors import ContractError
from lapa_core.vla.bounds import at_least
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.lwm.config import LwmConfig


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """The small FiLM trunk. `width` is the dial; the rest rarely changes."""

    KIND: ClassVar[str] = "film"

    image_px: int = 64
    """Side of the square frames [px]; the feature map is a quarter of it."""
    width: int = 32
    """Channels of the convolutions; a multiple of 4."""
    blocks: int = 1
    """Residual FiLM blocks on the feature map."""
    keypoints: int = 32
    """Maps whose expected positions are read off; a multiple of 4."""
    text_dim: int = 64
    """Width of the instruction's embedding."""
    features: int = 256
    """Width of the output that the heads read."""
    max_words: int = 16
    """Longest instruction [words]; the rest is cut off."""

    def __post_init__(self) -> None:
        if self.image_px % 4:
            raise ContractError(f"image_px is {self.image_px}; it must be a multiple of 4")
        for name in ("width", "keypoints"):
            if (value := getattr(self, name)) % 4:
                raise ContractError(f"{name} is {value}; it must be a multiple of 4")


ModelConfig = TrunkConfig | LwmConfig | HfConfig
"""Which family of models, and its sizes."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the two training stages share."""

    data: Path
    """Data set: LeRobot v3, RLDS, recordings; for pretraining also videos, or an index (`lapa data index`), which is
    decoded as it is read instead of being cached whole."""
    out: Path
    """Run directory; the finished model is in its `checkpoint/`."""
    model: ModelConfig = field(default_factory=TrunkConfig)
    """Which family of models, and its sizes, when there is no `init`; otherwise the checkpoint's are used."""
    steps: int = 600
    """Optimizer steps."""
    batch_size: int = 64
    """Frames per step, over all processes together."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW (paper: 2e-5 for all weights)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over time: a short warm-up and a cosine to zero, or the same throughout (the paper)."""
    beta2: float = 0.999
    """AdamW's decay of the squared gradient (paper: 0.95)."""
    weight_decay: float = 0.01
    """AdamW weight decay (paper: 0)."""
    shift_px: int = 3
    """Random shift of the image, up to this many pixels; 0 is off."""
    light: float = 0.15
    """Random change of contrast and brightness; 0 is off."""
    seed: int = 0
    """Seed of fresh weights, order, augmentation and dropout."""
    device: str = "cpu"
    """Torch device; `cuda` is each process's own under torchrun."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 multiplies matrices in bfloat16; weights, optimizer and losses stay in float32."""
    compile: bool = False
    """Compile the model: a minute or so at first, fewer and larger kernels afterwards."""
    recompute: bool = False
    """Keep no activations inside the model's blocks and compute them again for the gradients: a third more time, a
    fraction of the memory."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes (`torchrun --nproc-per-node 8 -m lapa_core vla ...`): ddp keeps the whole model in each,
    fsdp2 divides weights and optimizer among them. Both compute the same."""
    micro_batch: int = 0
    """Frames that a process computes at a time; the gradients of its share of the batch add up. 0: all at once."""
    length_window: int = 1
    """Batches whose frames are sorted by the length of their instructions, so that little is padded; 1 sorts none."""
    history: int = 0
    """Codes of so many earlier frames in the prompt, a gap apart (`lapa_core.vla.history`); 0 is off (the paper). What
    starts from a checkpoint that reads them needs its number. UniVLA has one: 92.0 instead of 88.1 on LIBERO-Long
    (facts/peers.md 1.4)."""
    lora_rank: int = 0
    """Train low-rank adapters of the blocks' linear layers (Hu et al., 2021) and the heads, and nothing else; merged
    into the weights at the end. 0 trains all weights."""
    lora_alpha: int = 32
    """Scale of the adapters: their product counts alpha / rank."""
    base: Literal["full", "nf4"] = "full"
    """nf4 keeps the frozen layers under LoRA in 4 bits (Dettmers et al., 2023); needs the extra `quant`."""
    dry_run: bool = False
    """Only say what the run would take: parameters, memory per process, FLOPs. Reads no data and allocates nothing."""
    processes: int = 0
    """Processes that a dry run assumes; 0: as many as torchrun started."""
    save_every: int = 500
    """Steps between resumable states; 0 saves none."""
    log_every: int = 50
    """Steps between rows of metrics."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(
            self, steps=1, batch_size=1, log_every=1, save_every=0, micro_batch=0, length_window=1, lora_rank=0,
            lora_alpha=1, processes=0, history=0, weight_decay=0, shift_px=0, light=0,
        )  # fmt: skip
        if not 0.0 < self.learning_rate < math.inf:
            raise ContractError(
                f"learning_rate is {self.learning_rate}; it must be a positive number"
            )
        if self.base == "nf4" and not self.lora_rank:
            raise ContractError(
                "base is nf4, but 4-bit weights cannot be trained; give a lora_rank (32, for example)"
            )
        if self.base == "nf4" and self.parallel == "fsdp2":
            raise ContractError(
                "base is nf4 and parallel is fsdp2, which cannot divide 4-bit weights; use ddp: the base fits on "
                "every card, and the adapters are small"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LoopConfig):
    """Pretrain a model to name the latent action that follows a frame. Sees frames, instructions and codes only."""

    labels: Path
    """Folder that `lapa laq label` made from the same data set."""
    laq: Path | None = None
    """Latent action model that the labels must be of; none takes the labels' word for it."""
    init: Path | None = None
    """Checkpoint whose weights are the start (`lapa vla import-release`, or an earlier pretraining); none starts from
    the backbone's own weights, or from fresh ones."""
    out: Path = Path("outputs/vla_pretrain")
    """Run directory; the finished model is in its `checkpoint/`."""
    steps: int = 2500
    """Optimizer steps (paper: 70,000)."""
    mean_weight: float = 2.0
    """Weight of the distance of the predicted mean code vector, beside the cross-entropy; 0 is off (the paper)."""
    text_weight: float = 0.0
    """Share of a loss of the text around the codes; the codes' loss has the rest. LWM only: its release has 0.01, the
    paper none."""
    unknown_word_share: float = 0.02
    """Share of words replaced by `<unk>`, so that new words do little harm; 0 is off. Small model only."""
    max_episodes: int = 0
    """Use only the first episodes; 0 uses all. Must match the labels."""
    workers: int = 4
    """Processes that decode video, for an index; 0 decodes in this one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, max_episodes=0, workers=0, mean_weight=0)
        if not 0.0 <= self.text_weight < 1.0:
            raise ContractError(f"text_weight is {self.text_weight}; allowed is 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LoopConfig):
    """Train an action head, and gently the trunk, on episodes with actions."""

    init: Path | None = None
    """Pretrained checkpoint; none trains the same model without latent pretraining."""
    out: Path = Path("outputs/vla_finetune")
    """Run directory; the finished policy is in its `checkpoint/`."""
    idm: Path | None = None
    """Inverse dynamics model (`lapa idm train`) that says the actions of the data set from its frames: pretraining on
    pseudo-labels, VPT's recipe (Baker et al., 2022). The data set's own actions, if it has any, are not read."""
    episodes: int = 0
    """Labelled episodes to use, drawn with `subset_seed`; 0 uses all."""
    subset_seed: int = 0
    """Seed of the draw: a smaller draw is part of a larger one with the same seed."""
    max_bins: int = 32
    """Most quantile bins of a dimension, at most 256 (paper: 256); few labels fill few bins."""
    smoothing_bins: float = 1.0
    """Width of the Gaussian that spreads each label over neighbouring bins [bins]; 0 is off."""
    mean_weight: float = 2.0
    """Weight of the error of the predicted mean, beside the cross-entropy; 0 is off."""
    continuous: bool = False
    """Replace the bins' head by one linear layer to a chunk of actions, trained with L1. OpenVLA-OFT gained 5 points on
    LIBERO by L1 instead of bins, UniVLA 22 by a continuous chunk (facts/peers.md 1.4)."""
    chunk: int = 1
    """Actions that the continuous head predicts [control periods]; the policy applies the first."""
    latent_weight: float = 0.0
    """Keep the latent head and its cross-entropy, at this weight, on the labelled frames' own codes; 0 is off (the
    paper drops the head). Moto kept it: 61.4 instead of 48.0 on SIMPLER (facts/peers.md 1.4). Needs `labels`."""
    labels: Path | None = None
    """Codes that `lapa laq label` made of the labelled data set, for `latent_weight`."""
    head_steps: int = 300
    """First steps, in which only the action head learns and the trunk stands still."""
    trunk_factor: float = 0.1
    """Learning rate of the trunk, relative to the head's."""
    freeze_stem: bool = True
    """Keep the vision stem or tower as it was pretrained (the paper freezes its vision encoder); scratch trains it."""
    dropout: float = 0.1
    """Dropout on the features that the head reads."""
    temperature: float = 0.0
    """Of the sampling with which the policy will be used: 0 takes the likeliest bin; the authors' release has 1."""
    gripper_hysteresis: float = 0.0
    """The policy's gripper opens only above 0.5 + this and closes only below 0.5 - this; 0 is off. For data whose
    gripper takes values in between; of two bins, each is beyond any threshold."""
    contract: str = ""
    """Robot contract, a name or a path, whose hash and control rate the policy carries; it must be the one that the
    data set was recorded under. "" takes that one, and wx250s_sim where the data set names none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            self, episodes=0, smoothing_bins=0, mean_weight=0, latent_weight=0, trunk_factor=0, temperature=0
        )  # fmt: skip
        if not 0 <= self.head_steps <= self.steps:
            raise ContractError(
                f"head_steps is {self.head_steps}; allowed is 0 to steps ({self.steps})"
            )
        if self.chunk < 1 or (self.chunk > 1 and not self.continuous):
            raise ContractError(
                f"chunk is {self.chunk}; allowed is 1, or more together with --continuous"
            )
        if self.latent_weight and self.labels is None:
            raise ContractError(
                f"latent_weight is {self.latent_weight}; allowed is 0, or more together with --labels"
            )
        if self.idm is not None and self.labels is not None:
            raise ContractError(
                f"idm is {self.idm} and labels are {self.labels}: what an inverse dynamics model labels it sees in the "
                "same frames as the codes; give one of them"
            )
        if self.history and not self.latent_weight:
            raise ContractError(
                f"history is {self.history}: the policy will read the codes that it names itself, so its latent head "
                "must learn with the action head; give --latent-weight (1.0, for example) and --labels"
            )
        if not 0.0 <= self.gripper_hysteresis < 0.5:
            raise ContractError(
                f"gripper_hysteresis is {self.gripper_hysteresis}; allowed is 0 to below 0.5"
            )


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Turn a pretrained model into a policy with no action head: a table from codes to actions."""

    data: Path
    """Data set with true actions."""
    init: Path
    """Pretrained checkpoint."""
    out: Path = Path("outputs/vla_table")
    """Run directory; the finished policy is in its `checkpoint/`."""
    episodes: int = 0
    """Labelled episodes to use, drawn with `subset_seed`; 0 uses all."""
    subset_seed: int = 0
    """Seed of the draw, as in finetuning."""
    max_bins: int = 32
    """Most quantile bins of a dimension: the table's actions are rounded to bin centres like a head's."""
    temperature: float = 0.0
    """Of the sampling with which the policy will be used: 0 takes the likeliest bin; the authors' release has 1."""
    near_codes_m: float = 0.0
    """The action is the mean over the codes that are likely and whose translations lie about this near to the drawn
    one's [m], at a temperature above 0; 0 takes the drawn code's own. Codes of a video carry the noise of its motion:
    the draw chooses where to go, the mean leaves the noise out. Codes that differ in rotation or gripper alone mix
    too."""
    contract: str = ""
    """Robot contract, a name or a path, whose hash and control rate the policy carries; it must be the one that the
    data set was recorded under. "" takes that one, and wx250s_sim where the data set names none."""
    device: str = "cpu"
    """Torch device."""

    def __post_init__(self) -> None:
        at_least(self, episodes=0, temperature=0, near_codes_m=0)
        if self.near_codes_m and not self.temperature:
            raise ContractError(
                f"near_codes_m is {self.near_codes_m}, but temperature is {self.temperature}, where no code is drawn "
                "to be near to; give --temperature 1.0, for example, or leave near_codes_m at 0"
            )
