# SPDX-License-Identifier: Apache-2.0
"""The machine is faked by what is on PATH: small programs that note how they were called."""

import os

import pytest

from lapa_core.errors import SetupError
from setup import system


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty PATH, and `add(name, script)` to put programs on it."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    monkeypatch.setenv("PATH", str(binaries))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def add(name, script='echo "$(/usr/bin/basename "$0")" "$@" >> "$CALLS"'):
        program = binaries / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    add.calls = tmp_path / "calls"
    return add


def need(name="c++", package="g++"):
    return system.Need(what=name, packages=(package,), is_present=system._program(name))


def test_nothing_missing_calls_nothing(machine):
    machine("c++")
    machine("apt-get")
    system.ensure([need()])
    assert not machine.calls.exists()


def test_without_apt_the_line_is_named(machine):
    wanted = [need(), need("cmake", "cmake")]
    with pytest.raises(SetupError, match=r"apt-get install -y g\+\+ cmake"):
        system.ensure(wanted)


@pytest.mark.parametrize("sudo", [None, "exit 1"], ids=["no sudo", "sudo wants a password"])
def test_without_rights_nothing_is_installed_and_the_line_is_named(machine, monkeypatch, sudo):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine("apt-get")
    if sudo:
        machine("sudo", sudo)
    with pytest.raises(SetupError, match=r"sudo apt-get install -y g\+\+"):
        system.ensure([need()])
    assert not machine.calls.exists()


@pytest.mark.parametrize("user", [0, 1000], ids=["root", "sudo without a password"])
def test_with_rights_it_is_installed(machine, monkeypatch, user):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    machine("sudo", 'shift; [ "$1" = true ] || exec /usr/bin/env "$@"')
    compiler = os.path.join(os.environ["PATH"], "c++")
    machine(
        "apt-get",
        f'echo "$@" >> "$CALLS"; case $1 in install) echo "#!/bin/sh" > {compiler}; /bin/chmod +x {compiler};; esac',
    )
    system.ensure([need()])
    assert machine.calls.read_text().splitlines() == ["update -q", "install -y -q g++"]


def test_an_installation_that_fails_is_an_error(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine("apt-get", "exit 100")
    with pytest.raises(SetupError, match=r"missing: c\+\+"):
        system.ensure([need()])


@pytest.mark.parametrize(
    ("files", "present"),
    [
        ([], False),
        (["usr/share/glvnd/egl_vendor.d/50_mesa.json"], False),
        (["usr/share/glvnd/egl_vendor.d/10_nvidia.json"], True),
        (
            [
                "usr/share/glvnd/egl_vendor.d/50_mesa.json",
                "usr/lib/x86_64-linux-gnu/dri/swrast_dri.so",
            ],
            True,
        ),
    ],
    ids=["nothing", "Mesa without its renderer", "a vendor's driver", "Mesa"],
)
def test_egl_driver(tmp_path, files, present):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert system._has_egl_driver(tmp_path) is present


def test_every_need_names_a_package():
    wanted = system.needs()
    assert all(each.packages for each in wanted)
    assert {"g++", "cmake", "libegl1", "libopengl0"} <= {
        name for each in wanted for name in each.packages
    }
