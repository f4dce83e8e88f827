# SPDX-License-Identifier: Apache-2.0
"""What a client may ask, and what it is told: every field checked, every refusal with its reason."""

from __future__ import annotations

import io
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
DECISION = "decision"
"""Key of the answer to a numbered request: the fields of the engine's `Decision`."""

MAX_SIDE_PX = 4096
"""Longest side of a picture [px]."""
MAX_PROMPT = 1000
"""Longest instruction [characters]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One checked request."""

    image_HWC: NDArray[np.uint8]
    """RGB picture."""
    prompt: str
    """What to do, in words."""
    number: int | None
    """What the answer shall repeat."""


def parse_request(data: bytes | str) -> Request:
    """Check one message of a client.

    Raises:
        DataError: it is not what `lapa serve --help` describes.
    """
    if isinstance(data, str):
        raise DataError("the message is text; send msgpack as a binary message")
    message = unpack(data)
    if missing := [key for key in (IMAGE, PROMPT) if key not in message]:
        raise DataError(
            f"the request lacks {missing}; it has {sorted(message)[:8]}. Needed are {IMAGE!r} and {PROMPT!r}"
        )
    if surplus := sorted(set(message) - {IMAGE, PROMPT, REQUEST}):
        raise DataError(
            f"this policy makes no use of {surplus[:8]}; send {IMAGE!r} and {PROMPT!r} alone"
        )
    return Request(
        image_HWC=_picture(message[IMAGE]),
        prompt=_words(message[PROMPT]),
        number=_number(message.get(REQUEST)),
    )


def describe(policy_config: dict[str, Any]) -> dict[str, Any]:
    """Return what a client is told when it connects; `policy` is what a `Policy` is rebuilt from on its side."""
    return {
        "server": "lapa",
        "version": lapa_core.__version__,
        "request": {
            IMAGE: "(H, W, 3) uint8 RGB, or the bytes of a JPEG or PNG file",
            PROMPT: "text",
        },
        "action_horizon": policy_config.get("chunk", 1),
        "action_names": list(ACTION_NAMES),
        "action_units": ["m", "m", "m", "rad", "rad", "rad", "0 closed to 1 open"],
        "policy": {key: value for key, value in policy_config.items() if key != "provenance"},
    }


def _picture(value: Any) -> NDArray[np.uint8]:
    picture = _decode(value) if isinstance(value, bytes) else value
    if not isinstance(picture, np.ndarray):
        raise DataError(
            f"{IMAGE} is a {type(picture).__name__}; an array or the bytes of a file is needed"
        )
    shape = picture.shape
    fits = len(shape) == 3 and shape[2] == 3 and all(1 <= side <= MAX_SIDE_PX for side in shape[:2])
    if picture.dtype != np.uint8 or not fits:
        raise DataError(
            f"{IMAGE} is {picture.dtype} of shape {shape}; needed is uint8 (H, W, 3) RGB with sides of 1 to "
            f"{MAX_SIDE_PX}"
        )
    return picture


def _decode(data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if max(image.size) > MAX_SIDE_PX:  # before the pixels are decoded
                raise DataError(
                    f"{IMAGE} is {image.size} px; sides of at most {MAX_SIDE_PX} are allowed"
                )
            if image.mode != "RGB":
                raise DataError(f"{IMAGE} is a picture of mode {image.mode}; RGB is needed")
            return np.asarray(image)
    except DataError:
        raise
    except PICTURE_DAMAGE as error:
        raise DataError(f"{IMAGE} cannot be decoded as JPEG or PNG: {error}") from error


def _words(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PROMPT:
        shown = repr(value)[:40] if isinstance(value, str) else type(value).__name__
        raise DataError(f"{PROMPT} is {shown}; words are needed, at most {MAX_PROMPT} characters")
    return value


def _number(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise DataError(f"{REQUEST} is a {type(value).__name__}; a whole number is needed")
    return value
