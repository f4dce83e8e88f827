# SPDX-License-Identifier: Apache-2.0
"""`lapa laq play`: a rollout of the world model, as a page on this machine or as an MP4."""

from __future__ import annotations

from typing import NamedTuple

from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.play.config import LaqPlayConfig
from lapa_core.laq.play.export import export_film
from lapa_core.laq.play.policy import CodePolicy
from lapa_core.laq.play.server import PlayPage
from lapa_core.laq.play.starts import Starts
from lapa_core.laq.play.world import World, parse_codes
from lapa_core.listen import listen, place
from lapa_core.local_page import serve


class Game(NamedTuple):
    """A rollout that is ready to be watched."""

    world: World
    """After the steps that were asked for on the command line."""
    starts: Starts
    """Other start frames."""
    model: LatentActionModel
    """Paints the frames."""
    gap_s: float
    """Time that one step stands for [s]."""

    def page(self) -> PlayPage:
        """Return the page over this rollout."""
        facts = {
            "tokens": self.model.tokens,
            "codes": self.model.codes,
            "image_px": self.model.image_px,
            "gap_s": self.gap_s,
            "policy": self.world.has_policy,
        }
        return PlayPage(self.world, self.starts, facts)


def open_game(config: LaqPlayConfig) -> Game:
    """Load everything and play the steps of the command line.

    Raises:
        CheckpointError: a checkpoint is damaged, or the policy speaks other codes.
        ContractError: the model paints no pictures.
        DataError: no such data, episode or frame.
        ActionError: no such code.
    """
    model, facts = load_laq(config.checkpoint, config.device)
    policy = None
    if config.policy is not None:
        policy = CodePolicy(config.policy, model, facts["weights_sha256"], config.device)
    starts = Starts(config.data, model.image_px)
    world = World(model, starts.read(config.episode, config.frame), policy)
    for codes in parse_codes(config.codes, model.tokens):
        world.step(codes)
    for _ in range(config.policy_steps):
        world.policy_step(config.instruction)
    return Game(world, starts, model, facts["gap_s"])


def main(config: LaqPlayConfig) -> None:
    """Export the rollout, or serve it until Ctrl-C."""
    game = open_game(config)
    if config.export is not None:
        film = game.world.film
        fps, side = export_film(config.export, film, game.gap_s, config.frame_px)
        print(f"wrote {config.export}: {len(film)} frames of {side} px at {fps} Hz")
        return
    taken = listen(config.host, config.port)
    print(f"world model: http://{place(config.host, taken)}  (Ctrl-C ends it)", flush=True)
    serve(game.page().application(config.host), taken)
    print("stopped")
