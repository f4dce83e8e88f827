# SPDX-License-Identifier: Apache-2.0
"""What a client may ask, and what it is told: every field checked, every refusal with its reason."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import lapa_core
from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.errors import DataError
from lapa_core.image import PICTURE_DAMAGE
from lapa_core.serve.wire import unpack

IMAGE, PROMPT, REQUEST = "observation/image", "prompt", "request"
"""Keys of a request: the camera's picture, what to do in words, and a number that the answer repeats (optional)."""
STATE = "observation/state"
"""Key of the measured state, for policies that take it."""
DECISION = "decision"
"""Key of the answer to a numbered request: the fields of the engine's `Decision`."""

MAX_SIDE_PX = 4096
"""Longest side of a picture [px]."""
MAX_PROMPT = 1000
"""Longest instruction [characters]."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a policy takes beside a picture and words, by the key of the request.

    Further cameras come as openpi's wrist camera does, `observation/wrist_image`; the measured state as its own.
    """

    cameras: dict[str, str]
    """Key -> name of the camera."""
    state_dim: int
    """Numbers of `observation/state`; 0: there is none."""

    @classmethod
    def of(cls, policy_config: Mapping[str, Any]) -> Inputs:
        """Return what the policy of a checkpoint's config takes."""
        model = policy_config.get("model", {})
        return cls(
            cameras={f"observation/{name}_image": name for name in model.get("cameras", ())[1:]},
            state_dim=model["state_dim"] if model.get("proprioception") else 0,
        )

    @property
    def keys(self) -> list[str]:
        """Every key."""
        return [*self.cameras, *([STATE] if self.state_dim else [])]

    def read(self, message: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Return what `Policy.act` takes as `extra`."""
        extra: dict[str, NDArray[Any]] = {
            name: _picture(key, message[key]) for key, name in self.cameras.items()
        }
        if self.state_dim:
            extra["state"] = _state(message[STATE], self.state_dim)
        return extra

    def write(self, extra: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return the inverse of `read`; the server says what is missing.

        Raises:
            DataError: something that the policy does not take.
        """
        keys = {name: key for key, name in self.cameras.items()} | {"state": STATE}
        if surplus := sorted(set(extra) - set(keys)):
            raise DataError(f"this policy makes no use of {surplus}; it takes {sorted(keys)}")
        return {keys[name]: value for name, value in extra.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One checked request."""

    image_HWC: NDArray[np.uint8]
    """RGB picture."""
    prompt: str
    """What to do, in words."""
    extra: dict[str, NDArray[Any]]
    """Further cameras' pictures by name, and the `state`."""
    number: int | None
    """What the answer shall repeat."""


def parse_request(data: bytes | str, inputs: Inputs) -> Request:
    """Check one message of a client of a policy with these inputs.

    Raises:
        DataError: it is not what `lapa serve --help` describes.
    """
    if isinstance(data, str):
        raise DataError("the message is text; send msgpack as a binary message")
    message = unpack(data)
    needed = [IMAGE, PROMPT, *inputs.keys]
    if missing := [key for key in needed if key not in message]:
        raise DataError(
            f"the request lacks {missing}; it has {sorted(message)[:8]}. Needed are {needed}"
        )
    if surplus := sorted(set(message) - {*needed, REQUEST}):
        raise DataError(f"this policy makes no use of {surplus[:8]}; send {needed} alone")
    return Request(
        image_HWC=_picture(IMAGE, message[IMAGE]),
        prompt=_words(message[PROMPT]),
        extra=inputs.read(message),
        number=_number(message.get(REQUEST)),
    )


def describe(policy_config: dict[str, Any]) -> dict[str, Any]:
    """Return what a client is told when it connects; `policy` is what a `Policy` is rebuilt from on its side."""
    inputs = Inputs.of(policy_config)
    pictures = dict.fromkeys(
        (IMAGE, *inputs.cameras), "(H, W, 3) uint8 RGB, or the bytes of a JPEG or PNG file"
    )
    state = {STATE: f"({inputs.state_dim},) numbers"} if inputs.state_dim else {}
    return {
        "server": "lapa",
        "version": lapa_core.__version__,
        "request": {PROMPT: "text", **pictures, **state},
        "action_horizon": policy_config.get("chunk", 1),
        "action_names": list(ACTION_NAMES),
        "action_units": ["m", "m", "m", "rad", "rad", "rad", "0 closed to 1 open"],
        "policy": {key: value for key, value in policy_config.items() if key != "provenance"},
    }


def _picture(key: str, value: Any) -> NDArray[np.uint8]:
    picture = _decode(key, value) if isinstance(value, bytes) else value
    if not isinstance(picture, np.ndarray):
        raise DataError(
            f"{key} is a {type(picture).__name__}; an array or the bytes of a file is needed"
        )
    shape = picture.shape
    fits = len(shape) == 3 and shape[2] == 3 and all(1 <= side <= MAX_SIDE_PX for side in shape[:2])
    if picture.dtype != np.uint8 or not fits:
        raise DataError(
            f"{key} is {picture.dtype} of shape {shape}; needed is uint8 (H, W, 3) RGB with sides of 1 to "
            f"{MAX_SIDE_PX}"
        )
    return picture


def _decode(key: str, data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if max(image.size) > MAX_SIDE_PX:  # before the pixels are decoded
                raise DataError(
                    f"{key} is {image.size} px; sides of at most {MAX_SIDE_PX} are allowed"
                )
            if image.mode != "RGB":
                raise DataError(f"{key} is a picture of mode {image.mode}; RGB is needed")
            return np.asarray(image)
    except DataError:
        raise
    except PICTURE_DAMAGE as error:
        raise DataError(f"{key} cannot be decoded as JPEG or PNG: {error}") from error


def _state(value: Any, size: int) -> NDArray[np.float32]:
    numbers = value if isinstance(value, np.ndarray) else None
    if numbers is None or numbers.dtype.kind != "f" or numbers.shape != (size,):
        shown = type(value).__name__ if numbers is None else f"{numbers.dtype} {numbers.shape}"
        raise DataError(f"{STATE} is {shown}; an array of {size} floats is needed")
    with np.errstate(over="ignore"):  # becomes infinite, and is refused
        rounded = numbers.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise DataError(f"{STATE} is {numbers.tolist()}; every number must be finite as float32")
    return rounded


def _words(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PROMPT:
        shown = repr(value)[:40] if isinstance(value, str) else type(value).__name__
        raise DataError(f"{PROMPT} is {shown}; words are needed, at most {MAX_PROMPT} characters")
    return value


def _number(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise DataError(f"{REQUEST} is a {type(value).__name__}; a whole number is needed")
    return value
