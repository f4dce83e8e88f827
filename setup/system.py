# SPDX-License-Identifier: Apache-2.0
"""System packages: what is missing, installed through apt where that needs no password, else named."""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lapa_core.errors import SetupError


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that pip cannot install."""

    what: str
    """Name for a person."""

    packages: tuple[str, ...]
    """Names of the packages on Debian and Ubuntu."""

    is_present: Callable[[], bool]
    """Looks for it on this machine."""


def needs() -> list[Need]:
    """Return everything that the set-up, the build and the simulator's rendering use."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [
        Need(what="C++ compiler", packages=("g++",), is_present=_program("c++")),
        Need(what="CMake", packages=("cmake",), is_present=_program("cmake")),
        Need(what="make", packages=("make",), is_present=_program("make")),
        Need(what="git", packages=("git",), is_present=_program("git")),
        Need(
            what=f"headers of {python}", packages=(f"{python}-dev",), is_present=_has_python_headers
        ),
        Need(what=f"venv of {python}", packages=(f"{python}-venv",), is_present=_has_venv),
        Need(what="EGL", packages=("libegl1",), is_present=_library("libEGL.so.1")),
        Need(what="OpenGL", packages=("libopengl0",), is_present=_library("libOpenGL.so.0")),
        Need(
            what="an EGL driver",
            packages=("libegl-mesa0", "libgl1-mesa-dri"),
            is_present=lambda: _has_egl_driver(Path("/")),
        ),
    ]


def ensure(wanted: Sequence[Need]) -> None:
    """Install what is missing, or say how.

    Raises:
        SetupError: something is missing and could not be installed; the message holds the apt line.
    """
    missing = [need for need in wanted if not need.is_present()]
    if not missing:
        return
    packages = [package for need in missing for package in need.packages]
    print(f"system packages missing: {', '.join(need.what for need in missing)}", flush=True)
    apt = _apt_command()
    if apt is not None:
        _install(apt, packages)
        missing = [need for need in missing if not need.is_present()]
    if missing:
        raise SetupError(
            f"missing: {', '.join(need.what for need in missing)}. "
            f"Install with\n\n    {apt_line(missing)}\n\nand call make again"
        )


def apt_line(missing: Sequence[Need]) -> str:
    """Return the one line that installs these on Debian and Ubuntu."""
    packages = " ".join(package for need in missing for package in need.packages)
    return f"sudo apt-get update && sudo apt-get install -y {packages}"


def _apt_command() -> list[str] | None:
    """Return how apt-get runs here without asking for a password, None where it cannot."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return [sudo, "-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    return None


def _install(apt: list[str], packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", "-y", "-q", *packages]):
        print("+", *apt, *arguments, flush=True)
        if subprocess.run([*apt, *arguments], env=environment).returncode:
            return


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _has_python_headers() -> bool:
    return Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def _has_venv() -> bool:
    return find_spec("venv") is not None and find_spec("ensurepip") is not None


def _library(name: str) -> Callable[[], bool]:
    def is_present() -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    return is_present


def _has_egl_driver(root: Path) -> bool:
    """Return whether a driver is registered with libglvnd, and has its renderer where it is Mesa's."""
    folders = ("usr/share/glvnd/egl_vendor.d", "etc/glvnd/egl_vendor.d")
    drivers = {path.name for folder in folders for path in (root / folder).glob("*.json")}
    if any("mesa" not in name for name in drivers):
        return True
    renderers = ("swrast_dri.so", "libdril_dri.so")
    directories = [*root.glob("usr/lib*/dri"), *root.glob("usr/lib/*/dri")]
    return bool(drivers) and any(
        (path / name).exists() for path in directories for name in renderers
    )
