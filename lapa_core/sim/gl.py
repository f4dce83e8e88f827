# SPDX-License-Identifier: Apache-2.0
"""Loads MuJoCo with an off-screen GL that needs no display, and says what to install where that fails."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import weakref
from types import ModuleType
from typing import Any

from lapa_core.errors import SetupError

# How PyOpenGL reports a missing library, depending on which and on where it is first used.
_NO_GL = (ImportError, AttributeError, RuntimeError, ctypes.ArgumentError)


_open: weakref.WeakSet[Any] = weakref.WeakSet()
"""Renderers that may hold a GL context."""


def load_mujoco() -> ModuleType:
    """Import and return MuJoCo, with EGL as its renderer on Linux unless `MUJOCO_GL` says otherwise.

    Raises:
        SetupError: MuJoCo or the GL library that it loads is not installed.
    """
    if sys.platform.startswith("linux") and "mujoco" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read once, when mujoco is imported
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise SetupError(
            "the simulator needs MuJoCo: pip install 'lapa[sim]' (or pip install mujoco)"
        ) from error
    except _NO_GL as error:
        raise _no_gl(error) from error
    return mujoco


def open_renderer(model: Any, size_px: int) -> Any:
    """Return a `mujoco.Renderer` of square images for `model`; one that nobody closes is closed at the program's end.

    Raises:
        SetupError: no GL context can be made.
    """
    mujoco = load_mujoco()
    try:
        renderer = mujoco.Renderer(model, size_px, size_px)
    except (*_NO_GL, mujoco.FatalError) as error:
        raise _no_gl(error) from error
    if not _open:
        atexit.unregister(_close_all)
        atexit.register(
            _close_all
        )  # after MuJoCo's own, which ends EGL: the last one registered runs first
    _open.add(renderer)
    return renderer


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


def _no_gl(error: Exception) -> SetupError:
    return SetupError(
        f"no off-screen GL context with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} ({error}). If mujoco was "
        "imported before lapa_core.sim, set MUJOCO_GL=egl in the environment. On Debian or Ubuntu: apt install "
        "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0; or set MUJOCO_GL=osmesa after apt install libosmesa6"
    )
