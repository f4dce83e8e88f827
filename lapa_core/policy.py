# SPDX-License-Identifier: Apache-2.0
"""The policy behind one call: a camera frame and an instruction in, one end-effector delta out.

Importing this module needs numpy only; torch is imported by `Policy.load`, unless the model runs in a `lapa serve`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.checkpoint import load_config
from lapa_core.errors import ActionError, CheckpointError, ContractError
from lapa_core.image import preprocess
from lapa_core.paths import CHECKPOINTS_DIR
from lapa_core.vla.history import HISTORY, CodeMemory

DEFAULT_CHECKPOINT = CHECKPOINTS_DIR / "sim_policy"
"""The policy that ships with the package, trained for the simulator."""
NEEDED_FACTS = frozenset({"bins", "image_px", "contract_hash", "control_rate_hz"})
"""What the config of every policy says."""
PLANS = "plan"
"""The `decoder` of a policy that plans frames (`lapa_core.unipi`); every other one is of `lapa_core.vla`."""
SERVER_SCHEMES = ("ws://", "wss://")
"""How the address of a policy server begins."""


class Decision(NamedTuple):
    """What the model half of a policy says about one frame."""

    action_7: NDArray[np.float64]
    """Action [m, rad, opening], inside the arm's caps."""
    bins_7: NDArray[np.int64]
    """The bins that it was decoded from; of a continuous head, those in which it lies."""
    latent: tuple[int, ...] | None
    """The latent action codes that the action was made of, or that were asked for."""
    chunk_H7: NDArray[np.float64]
    """This action and the ones after it, as a continuous head predicts them; (1, 7) of the others."""


class Engine(Protocol):
    """The model half of a policy: pixels and words to an action."""

    def step(self, frame_SS3: NDArray[np.uint8], instruction: str) -> Decision:
        """Decide on one preprocessed square frame."""


@runtime_checkable
class ManyInputsEngine(Protocol):
    """An engine whose model may take further cameras and the state."""

    def step_with(
        self, frame_SS3: NDArray[np.uint8], instruction: str, extra: Mapping[str, NDArray[Any]]
    ) -> Decision:
        """Decide on one preprocessed square frame and what there is beside it."""


def decide(
    engine: Engine,
    frame_SS3: NDArray[np.uint8],
    instruction: str,
    extra: Mapping[str, NDArray[Any]],
) -> Decision:
    """Let an engine decide on one preprocessed square frame and what there is beside it.

    Raises:
        ContractError: there is something beside it, and the engine takes nothing.
    """
    if not extra:
        return engine.step(frame_SS3, instruction)
    if not isinstance(engine, ManyInputsEngine):
        raise ContractError(
            f"{sorted(extra)} are given, but this policy takes one image and an instruction"
        )
    return engine.step_with(frame_SS3, instruction, extra)


@dataclass(frozen=True)
class PolicyStep:
    """One decision of a policy."""

    delta: EndEffectorDelta
    """The decoded command."""
    bins: NDArray[np.int64]
    """(7,) the bins that it was decoded from."""
    latent: tuple[int, ...] | None
    """The latent action codes that a table made it of, or that `Policy.load(latents=True)` asked for."""
    chunk_H7: NDArray[np.float64] | None = None
    """The command and those that a continuous head predicts after it, (H, 7); (1, 7) of the other heads."""


class Gripper:
    """Opens and closes with hysteresis, so that an undecided policy does not make the gripper flicker."""

    def __init__(self, half_band: float):
        """Switch only above 0.5 + `half_band` or below 0.5 - `half_band`; 0 passes every opening through."""
        self.half_band = half_band
        self._open: bool | None = None

    def __call__(self, opening: float) -> float:
        """Return the opening to command."""
        if self.half_band == 0.0:
            return opening
        if self._open is None or abs(opening - 0.5) > self.half_band:
            self._open = opening >= 0.5
        return float(self._open)

    def reset(self) -> None:
        """Forget the state: the next opening decides alone."""
        self._open = None


class Policy:
    """A finetuned policy, rebuilt from its checkpoint alone."""

    def __init__(self, engine: Engine, config: dict[str, Any], *, memory: CodeMemory | None = None):
        """Wrap an engine; `config` is the checkpoint's, `memory` what `CodeMemory.of` makes of it.

        Without a memory, a policy that reads the codes of earlier frames is one whose engine remembers them.
        """
        self.engine = engine
        self._memory = memory
        self._gripper = Gripper(float(config.get("gripper_hysteresis", 0.0)))
        self._instruction = ""
        self.image_px: int = config["image_px"]
        self.contract_hash: str = config["contract_hash"]
        self.control_rate_hz: float = config["control_rate_hz"]
        self.config = config

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        device: str = "cpu",
        *,
        temperature: float | None = None,
        top_k: int = 0,
        seed: int = 0,
        latents: bool = False,
        compile: bool = False,
    ) -> Policy:
        """Rebuild a policy from a checkpoint folder; without one, the policy that ships with the package.

        Args:
            directory: checkpoint, or `ws://host:port` of a `lapa serve`, which has chosen the rest itself.
            device: torch device.
            temperature: of the sampling of bins (or codes, with a code table); 0 takes the likeliest. Of a
                policy that plans frames, of the noise that a plan begins with. None takes the checkpoint's own,
                with which it was evaluated.
            top_k: sample from so many of the likeliest only (the authors' release: 50); 0 from all.
            seed: of the sampling; the same calls in the same order give the same decisions.
            latents: also name the latent action codes where the model kept that head and its actions come from another;
                for a large model nearly as long again.
            compile: compile a large model's decoding, for a GPU: minutes at the start, less time per action.

        Raises:
            CheckpointError: missing, damaged, or not a policy.
            ContractError: a temperature that is negative or not finite, or a setting for a server.
            ServerError: the server cannot be reached, or refuses.
        """
        if isinstance(directory, str) and directory.startswith(SERVER_SCHEMES):
            own = {
                "device": device != "cpu", "temperature": temperature is not None, "top_k": top_k,
                "seed": seed, "latents": latents, "compile": compile,
            }  # fmt: skip
            return _load_remote(directory, [name for name, given in own.items() if given])
        directory = DEFAULT_CHECKPOINT if directory is None else Path(directory)
        config = load_config(directory, kind="policy")
        if missing := NEEDED_FACTS - set(config):
            raise CheckpointError(
                f"{directory}: config.json lacks {sorted(missing)}; finetune again to make a policy"
            )
        if config.get("decoder") == PLANS:
            from lapa_core.unipi.engine import load_planner  # torch comes with it

            _refuse_of_planner(top_k=top_k, latents=latents, compile=compile)
            return cls(load_planner(directory, device, temperature=temperature, seed=seed), config)
        from lapa_core.vla.engine import load_engine  # torch comes with it

        engine = load_engine(
            directory, device, temperature=temperature, top_k=top_k, seed=seed, latents=latents, compile=compile
        )  # fmt: skip
        return cls(engine, config, memory=CodeMemory.of(config))

    def act(
        self,
        frame_HWC: NDArray[np.uint8],
        instruction: str,
        extra: Mapping[str, NDArray[Any]] | None = None,
    ) -> PolicyStep:
        """Decide on one delta.

        Args:
            frame_HWC: the camera's RGB uint8 image, of any size; cropped and resized here.
            instruction: what to do, in words.
            extra: what a model of several inputs takes beside them: further cameras' images by name, and the
                measured `state` (D,).

        Raises:
            DataError: the frame is not an RGB uint8 image, or an extra input is missing or of a wrong shape.
            ContractError: the model takes no extra inputs.
            ActionError: the instruction is empty, or the engine decided on an action that is none.
        """
        if not instruction.strip():
            raise ActionError("the instruction is empty; say what the robot shall do")
        if instruction != self._instruction:
            self._instruction = instruction
            self._forget()
        decided = self._decide(preprocess(frame_HWC, self.image_px), instruction, extra)
        if self._memory is not None:
            assert decided.latent is not None, "an engine names the codes that its policy reads"
            self._memory.remember(decided.latent)
        action_7 = decided.action_7.copy()
        action_7[6] = self._gripper(float(action_7[6]))
        delta = EndEffectorDelta.from_array(action_7)
        return PolicyStep(delta, decided.bins_7, decided.latent, decided.chunk_H7)

    def _decide(
        self,
        frame_SS3: NDArray[np.uint8],
        instruction: str,
        extra: Mapping[str, NDArray[Any]] | None,
    ) -> Decision:
        own = {
            name: preprocess(value, self.image_px) if value.ndim == 3 else value
            for name, value in (extra or {}).items()
        }
        if self._memory is not None:
            own[HISTORY] = self._memory.codes()
        return decide(self.engine, frame_SS3, instruction, own)

    def _forget(self) -> None:
        self._gripper.reset()
        if self._memory is not None:
            self._memory.forget()

    def reset(self) -> None:
        """Begin an episode: forget the gripper's state and the codes of earlier frames.

        Another instruction does the same by itself; the same one again does not.
        """
        self._forget()
        if (reset := getattr(self.engine, "reset", None)) is not None:
            reset()

    def close(self) -> None:
        """Give back what the engine holds: the connection to a server."""
        if (close := getattr(self.engine, "close", None)) is not None:
            close()


def refuse_plans(directory: str | Path | None, why: str) -> None:
    """Refuse, before it is loaded, a policy that executes plans which it made from earlier frames.

    Args:
        directory: as for `Policy.load`; the policy that ships is none of these.
        why: what is wrong with that where it shall be used.

    Raises:
        CheckpointError: there is no such checkpoint.
        ContractError: it is such a policy.
    """
    if directory and load_config(directory).get("decoder") == PLANS:
        raise ContractError(
            f"{directory} executes plans that it made from earlier frames, but {why}; `lapa eval` rolls it out in the "
            "simulator"
        )


def _refuse_of_planner(**settings: object) -> None:
    if given := [name for name, value in settings.items() if value]:
        raise ContractError(
            f"{given} cannot be chosen here: this policy plans frames and names neither bins nor codes; leave them out"
        )


def _load_remote(address: str, settings: Sequence[str]) -> Policy:
    if settings:
        raise ContractError(
            f"{list(settings)} cannot be chosen here: {address} has its own; give it to `lapa serve`"
        )
    from lapa_core.serve.client import connect_policy  # websockets comes with it

    return connect_policy(address)
