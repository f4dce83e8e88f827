# SPDX-License-Identifier: Apache-2.0
"""The answer in words: each criterion with its value, its thresholds and where these come from. Imports numpy at most.

What to measure comes from the authors' threads and from papers. Few of them say how much is enough, so most thresholds
are choices of this project; each says so, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lapa_core.laq.report.actions import ActionFigures
from lapa_core.laq.report.codes import CodeFigures
from lapa_core.laq.report.pictures import PictureFigures

Level = Literal["good", "usable", "not usable"]
LEVELS: tuple[Level, ...] = ("not usable", "usable", "good")
"""From worst to best."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One question with a measured answer."""

    key: str
    """Short name."""
    question: str
    """What is asked, in plain words."""
    value: float
    """Measured."""
    good: float
    """Good from here on."""
    usable: float
    """Usable from here on."""
    unit: str
    """Unit of the three numbers; empty for shares and R2."""
    source: str
    """Where the question and the thresholds come from."""
    advice: str
    """What to do when the answer is bad."""
    essential: bool = True
    """Whether failing here makes the whole model not usable; otherwise it only keeps it from being good."""
    lower_is_better: bool = False
    """Whether small values are good."""

    @property
    def level(self) -> Level:
        """Where the value lies."""
        sign = -1.0 if self.lower_is_better else 1.0
        if sign * self.value >= sign * self.good:
            return "good"
        return "usable" if sign * self.value >= sign * self.usable else "not usable"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The whole answer."""

    level: Level
    """Worst essential criterion; good needs every criterion good and true actions to have been there."""
    summary: str
    """The answer in one or two sentences."""
    advice: tuple[str, ...]
    """What to do next, the most urgent first."""
    criteria: tuple[Criterion, ...]
    """What it rests on."""


def judge(
    codes: CodeFigures, pictures: PictureFigures | None, actions: ActionFigures | None
) -> Verdict:
    """Weigh what was measured; a part that could not be measured is None."""
    criteria = (
        *_of_codes(codes),
        *_of_pictures(pictures),
        *_of_actions(actions),
        *_controls(codes),
    )
    failed = [c for c in criteria if c.essential and c.level == "not usable"]
    weak = [c for c in criteria if c.level != "good" and c not in failed]
    level: Level = "good"
    if failed:
        level = "not usable"
    elif weak or actions is None:
        level = "usable"
    return Verdict(
        level=level,
        summary=_summary(level, failed, weak, actions),
        advice=tuple(dict.fromkeys(criterion.advice for criterion in failed or weak)),
        criteria=criteria,
    )


def _summary(
    level: Level, failed: list[Criterion], weak: list[Criterion], actions: ActionFigures | None
) -> str:
    if failed:
        return f"This model should not label data yet. It fails on: {_names(failed)}."
    blind = (
        " Whether the codes are actions was not measured: that needs data with true actions, and good pictures do "
        "not imply it."
    )
    if level == "good":
        return "The codes are in use, the decoder needs them, and they name the true motion."
    text = "This model can label data." + (f" Weaker points: {_names(weak)}." if weak else "")
    return text if actions is not None else text + blind


def _names(criteria: list[Criterion]) -> str:
    return ", ".join(criterion.key for criterion in criteria)


def _of_codes(codes: CodeFigures) -> Iterator[Criterion]:
    yield Criterion(
        key="codes evenly used" if codes.worst_share >= 0.25 else "codes collapsed",
        question="How evenly are the codes used, at the position that uses them least evenly? 0 is one code only, 1 is "
        "all alike. ((perplexity - 1) / (codes - 1))",
        value=codes.worst_share,
        good=0.5,
        usable=0.25,
        unit="",
        source="Collapse to few codes is the commonest failure: LAPA issues 17 and 50. Thresholds: choice of this "
        "project; a quarter is about where training raises its alarm.",
        advice="The codes have collapsed. Check that the frames of a pair differ (gap_s), train longer with dead codes "
        "revived, or take the conv design, whose codes are made after training.",
    )
    yield Criterion(
        key="every code in use",
        question="What share of the codes occurs at all, at the position that uses fewest?",
        value=codes.worst_used,
        good=0.9,
        usable=0.5,
        unit="",
        source="The authors' rule, LAPA issue 26: a good model uses all codes. Thresholds: choice of this project; a "
        "tenth may belong to motions that these videos do not show.",
        advice="Some codes never occur: measure on more or livelier videos, or train with fewer codes.",
        essential=False,
    )


def _of_pictures(pictures: PictureFigures | None) -> Iterator[Criterion]:
    if pictures is None:
        return
    yield Criterion(
        key="better than no motion",
        question="How much closer to the true later frame is the decoded one than the present frame is? (PSNR)",
        value=pictures.gain_db,
        good=1.0,
        usable=0.0,
        unit="dB",
        source="The authors' rule, LAPA issue 26: above 0. The 1 dB for good: choice of this project.",
        advice="The decoder predicts no better than a frozen picture: train longer, or widen gap_s until motion is "
        "visible.",
    )
    yield Criterion(
        key="decoded towards the future",
        question="In what share of moving pairs is the decoded frame closer to the later frame than to the first?",
        value=pictures.closer_share,
        good=0.8,
        usable=0.5,
        unit="",
        source="The authors' rule, LAPA issue 26, for each pair. Thresholds: choice of this project.",
        advice="Many decoded frames repeat the present one: train longer, or widen gap_s.",
        essential=False,
    )
    yield Criterion(
        key="decoder needs the codes",
        question="How much worse does the picture get with the codes of another pair? (delta-PSNR)",
        value=pictures.delta_db,
        good=1.0,
        usable=0.1,
        unit="dB",
        source="Measure: Genie, arXiv 2402.15391, with random latents. Thresholds: choice of this project.",
        advice="The decoder ignores the codes: it can guess the future from the present, or the codes carry nothing. "
        "Widen gap_s, or narrow what the decoder sees of the first frame.",
    )


def _of_actions(actions: ActionFigures | None) -> Iterator[Criterion]:
    if actions is None:
        return
    yield Criterion(
        key="codes name the motion",
        question="How much of the true translation do the one-hot codes explain beyond what the first frame already "
        "gives away? (R2, held-out episodes)",
        value=actions.floor_margin,
        good=0.4,
        usable=0.05,
        unit="",
        source="Probe: LAOM, arXiv 2502.00379, here on the codes, because a probe of the vectors hides a collapse. "
        "Thresholds: choice of this project, from its simulator: policies gained from codes with 0.09, and gained "
        "most from codes with 0.77.",
        advice="The codes say little about the true motion: try the conv design, a few labelled episodes (action "
        "head), or another gap_s.",
    )
    yield Criterion(
        key="codes and actions share information",
        question="How far does the mutual information of codes and motions exceed that of random re-pairings? (NMI)",
        value=actions.nmi_excess,
        good=0.2,
        usable=0.02,
        unit="",
        source="No paper sets a threshold; choice of this project. The permutation null removes the bias of many "
        "tuples and few pairs.",
        advice="Codes and motions are nearly independent: see the probe above.",
    )


def _controls(codes: CodeFigures) -> Iterator[Criterion]:
    yield Criterion(
        key="one code for no motion",
        question="What share of unmoved frames (both frames the same) gets one and the same code?",
        value=codes.still_share,
        good=0.95,
        usable=0.5,
        unit="",
        source="Control of LAOM and AdaWorld (arXiv 2503.18938); a collapse passes it too. Thresholds: choice of this "
        "project.",
        advice="Standing still has many names, so the codes also describe the place: train with shifted copies "
        "(shift_px).",
        essential=False,
    )
    if codes.past_future_cosine is None:
        return
    yield Criterion(
        key="direction of time",
        question="How alike are the latents past to present and future to present? (cosine, S-PCFC)",
        value=codes.past_future_cosine,
        good=0.5,
        usable=0.9,
        unit="",
        source="Measure: CoMo, arXiv 2505.17006. Thresholds: choice of this project; -1 is opposite, 1 is the same.",
        advice="The latent describes the present frame more than the motion into it: feed the encoder the difference "
        "of the frames, or narrow the latent.",
        essential=False,
        lower_is_better=True,
    )
