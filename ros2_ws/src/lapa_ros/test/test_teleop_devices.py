# SPDX-License-Identifier: Apache-2.0
"""Devices, from what their drivers hand out: characters of a terminal, the kernel's joystick events."""

import os
import pty
import sys
import termios
import time
from types import ModuleType, SimpleNamespace

import pytest
from lapa_ros.params import TeleopInputParams, TeleopParams
from lapa_ros.teleop_controls import BUTTONS, MOTIONS
from lapa_ros.teleop_devices import DeviceError
from lapa_ros.teleop_input_node import make_device
from lapa_ros.teleop_joystick import AXIS, BUTTON, EVENT, INITIAL, Joystick
from lapa_ros.teleop_keyboard import Keyboard, Keys, parse_keys
from lapa_ros.teleop_node import control_map
from lapa_ros.teleop_spacemouse import SpaceMouse

from lapa_core.errors import ContractError, SetupError

KEYS = parse_keys(TeleopInputParams().keys)


def controls(reading, device="keyboard"):
    """Return motions that are not 0, and what is pressed."""
    read = control_map(TeleopParams(device=device)).read(*reading, 0.0)
    moving = {name: value for name, value in zip(MOTIONS, read.motion, strict=True) if value}
    return moving, set(read.pressed)


def typed(text, after_s=0.0, hold_s=0.18):
    keys = Keys(KEYS, hold_s)
    keys.type(text, 10.0)
    return controls(keys.reading(10.0 + after_s))


def test_a_key_that_moves_is_its_own_switch_for_a_moment():
    assert typed("w") == ({"x": 1.0}, {"hold"})
    assert typed("w", after_s=0.17) == ({"x": 1.0}, {"hold"})
    assert typed("w", after_s=0.19) == ({}, set())


def test_keys_add_up_and_opposite_ones_cancel():
    assert typed("wae") == ({"x": 1.0, "y": 1.0, "z": 1.0}, {"hold"})
    assert typed("ws") == ({}, {"hold"})


def test_buttons_are_no_switches_but_for_the_gripper_and_the_switch_itself():
    assert typed(" ") == ({}, {"stop"})
    assert typed("r") == ({}, {"ready"})
    assert typed("g") == ({}, {"gripper", "hold"})
    assert typed("f") == ({}, {"hold"})


def test_stop_again_after_a_clear_is_pressed_again():
    """Regression pinned: typed again soon after a clear, stop was still down from before, and was not pressed."""
    keys = Keys(KEYS, 0.18)
    seen = []
    for index, text in enumerate((" ", "c", " ", " c", "c ")):
        now_s = 10.0 + 0.02 * index
        keys.type(text, now_s)
        seen.append(controls(keys.reading(now_s))[1])
    assert seen == [{"stop"}, {"clear"}, {"stop"}, {"stop", "clear"}, {"stop"}]


def test_slow_stays_until_it_is_pressed_again():
    assert typed("t", after_s=5.0) == ({}, {"slow"})
    assert typed("tt") == ({}, set())


def test_other_keys_and_sequences_do_nothing():
    assert typed("\x1b[15~\x1bOP\x1b[D\xe4?") == ({}, set())
    assert parse_keys(["up x+"]) == {"up": ("x", 1.0)}
    keys = Keys(parse_keys(["up x+", "enter clear"]), 0.18)
    keys.type("\x1b[A\r", 10.0)
    assert controls(keys.reading(10.0)) == ({"x": 1.0}, {"hold", "clear"})


@pytest.mark.parametrize(
    "pieces",
    [
        ["\x1bD"],
        ["\x1b", "[D"],
        ["\x1b[", "D"],
        ["\x1b[1;", "5D"],
        ["\x1bO", "A"],
        ["\x1b\x1b[D"],
        ["\x1b[<0;4;4M"],
    ],
)
def test_a_part_of_a_sequence_is_no_key(pieces):
    """Arrow keys over a slow line, and Alt with a letter: `D` alone discards the episode."""
    keys = Keys(KEYS, 0.5)
    for number, piece in enumerate(pieces):
        keys.type(piece, 10.0 + 0.02 * number)
    assert controls(keys.reading(10.1)) == ({}, set())


@pytest.mark.parametrize("pieces", [["\x1b "], ["\x1b", " "], ["\x1b[", " "], ["\x1bO "]])
def test_the_stop_key_stops_whatever_came_before_it(pieces):
    keys = Keys(KEYS, 0.5)
    for number, piece in enumerate(pieces):
        keys.type(piece, 10.0 + 0.02 * number)
    assert controls(keys.reading(10.1)) == ({}, {"stop"})


def test_a_key_long_after_escape_is_itself():
    keys = Keys(KEYS, 0.5)
    keys.type("\x1b", 10.0)
    keys.type("D", 10.5)
    assert controls(keys.reading(10.5)) == ({}, {"discard"})


@pytest.mark.parametrize("line", ["w", "w x", "w stop+", "w w+", "", "w x+ y+"])
def test_wrong_lines_of_keys_are_refused(line):
    with pytest.raises(ContractError, match="allowed is a key"):
        parse_keys([line])


def test_a_key_with_two_meanings_is_refused():
    with pytest.raises(ContractError, match="twice"):
        parse_keys(["w x+", "w x-"])


@pytest.fixture
def terminal():
    """The two ends of a terminal: what a person types into, and the path of what the node reads."""
    person, node = pty.openpty()
    yield person, os.ttyname(node)
    for handle in (person, node):
        os.close(handle)


def poll_until(device, wanted, limit_s=2.0):
    end_s = time.monotonic() + limit_s
    while (got := controls(device.poll(time.monotonic()))) != wanted:
        assert time.monotonic() < end_s, got
        time.sleep(0.005)


def test_a_terminal_is_read_key_by_key_and_given_back(terminal):
    person, path = terminal
    before = termios.tcgetattr(person)
    keyboard = Keyboard(KEYS, 0.18, path)
    assert "space stop" in keyboard.open()
    assert not termios.tcgetattr(person)[3] & (termios.ECHO | termios.ICANON)
    assert termios.tcgetattr(person)[3] & termios.ISIG, "Ctrl-C must still end the graph"
    assert controls(keyboard.poll(time.monotonic())) == ({}, set())
    os.write(person, b"d")
    poll_until(keyboard, ({"y": -1.0}, {"hold"}))
    poll_until(keyboard, ({}, set()))
    keyboard.close()
    assert termios.tcgetattr(person) == before


def test_what_was_typed_before_is_no_command(terminal):
    person, path = terminal
    os.write(person, b"wwww\n")
    keyboard = Keyboard(KEYS, 0.18, path)
    keyboard.open()
    assert controls(keyboard.poll(0.0)) == ({}, set())
    keyboard.close()


def test_a_terminal_that_is_closed_is_said():
    person, node = pty.openpty()
    keyboard = Keyboard(KEYS, 0.18, os.ttyname(node))
    keyboard.open()
    for handle in (person, node):
        os.close(handle)
    with pytest.raises(DeviceError, match="gone"):
        keyboard.poll(0.0)
    keyboard.close()


@pytest.mark.parametrize("path", ["/dev/null", "/nowhere"])
def test_what_is_no_terminal_is_refused(path):
    with pytest.raises(DeviceError, match="terminal"):
        Keyboard(KEYS, 0.18, path).open()


def event(kind, number, value):
    return EVENT.pack(123, value, kind, number)


@pytest.fixture
def pad(tmp_path):
    """A joystick device file that events can be written to, and what reads it."""
    path = tmp_path / "js0"
    os.mkfifo(path)
    handle = os.open(path, os.O_RDWR)
    joystick = Joystick(str(path))
    joystick.open()
    yield handle, joystick
    joystick.close()
    os.close(handle)


def test_a_gamepad_is_read_from_the_kernels_events(pad):
    handle, joystick = pad
    state = [event(AXIS | INITIAL, number, 0) for number in range(8)]
    state += [event(BUTTON | INITIAL, number, 0) for number in range(11)]
    os.write(handle, b"".join(state))
    assert joystick.poll(0.0) == ((0.0,) * 8, (0,) * 11)
    os.write(handle, event(AXIS, 1, -32767) + event(BUTTON, 5, 1))
    assert controls(joystick.poll(0.0), "joystick") == ({"x": 1.0}, {"hold"})
    os.write(handle, event(AXIS, 0, -32768) + event(AXIS, 1, 0))
    assert controls(joystick.poll(0.0), "joystick") == ({"y": 1.0}, {"hold"})
    os.write(handle, event(BUTTON, 5, 0) + event(AXIS, 0, 1000))  # within the dead zone
    assert controls(joystick.poll(0.0), "joystick") == ({}, set())


def test_a_button_that_changed_and_changed_back_between_two_readings_is_seen(pad):
    """Regression pinned: a node that stood still for a moment lost the press of the stop button."""
    handle, joystick = pad
    state = [event(AXIS | INITIAL, number, 0) for number in range(8)]
    state += [event(BUTTON | INITIAL, number, 0) for number in range(11)]
    os.write(handle, b"".join(state) + event(BUTTON, 5, 1))
    assert controls(joystick.poll(0.0), "joystick") == ({}, {"hold"})
    os.write(handle, event(BUTTON, 1, 1) + event(AXIS, 1, -32767) + event(BUTTON, 1, 0))
    assert controls(joystick.poll(0.0), "joystick") == ({"x": 1.0}, {"hold", "stop"})
    assert controls(joystick.poll(0.0), "joystick") == ({"x": 1.0}, {"hold"})
    os.write(handle, event(BUTTON, 5, 0) + event(BUTTON, 5, 1))
    assert controls(joystick.poll(0.0), "joystick") == ({"x": 1.0}, set()), "it was open"
    assert controls(joystick.poll(0.0), "joystick") == ({"x": 1.0}, {"hold"})
    os.write(handle, event(BUTTON, 1, 1) + event(BUTTON, 1, 0) + event(BUTTON, 1, 1))
    for _ in range(2):
        assert controls(joystick.poll(0.0), "joystick") == ({"x": 1.0}, {"hold", "stop"})


def test_an_event_that_comes_in_two_parts_is_one(pad):
    handle, joystick = pad
    whole = event(BUTTON, 0, 1)
    os.write(handle, whole[:3])
    assert joystick.poll(0.0) == ((), ())
    os.write(handle, whole[3:])
    assert joystick.poll(0.0) == ((), (1,))


def test_a_gamepad_that_is_unplugged_is_said(tmp_path):
    path = tmp_path / "js0"
    path.touch()  # its end reads as empty, like a device that is gone
    joystick = Joystick(str(path))
    joystick.open()
    with pytest.raises(DeviceError, match="gone"):
        joystick.poll(0.0)
    joystick.close()
    with pytest.raises(DeviceError, match="plug it in"):
        Joystick(str(tmp_path / "js1")).open()


def test_every_button_of_the_shipped_maps_has_a_meaning():
    for device in ("keyboard", "joystick", "spacemouse", "joy"):
        control_map(TeleopParams(device=device))
    assert {name for name, sign in KEYS.values() if not sign} <= set(BUTTONS)


def test_the_spacemouse_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspacemouse", None)
    with pytest.raises(SetupError, match=r"\[spacemouse\]"):
        make_device(TeleopInputParams(device="spacemouse")).open()


class FakeMouse:
    """Reports that pyspacemouse would have read, one per call; then the last one again."""

    name = "SpaceNavigator"

    def __init__(self, *reports):
        self.reports, self.closed = list(reports), False
        self.state = SimpleNamespace(
            t=0.0, x=0.0, y=0.0, z=0.0, roll=0.0, pitch=0.0, yaw=0.0, buttons=[0, 0]
        )

    def read(self):
        if self.reports:
            report = self.reports.pop(0)
            if isinstance(report, Exception):
                raise report
            vars(self.state).update(t=self.state.t + 0.01, **report)
        return self.state

    def close(self):
        self.closed = True


def test_a_spacemouse_is_drained_and_read_in_rep_103(monkeypatch):
    mouse = FakeMouse(
        {"x": 0.2}, {"x": 1.0, "yaw": -1.0}, {"buttons": [1, 0]}, OSError("unplugged")
    )
    module = ModuleType("pyspacemouse")
    module.AxisConvention = SimpleNamespace(ROS="ros")
    module.open = lambda device, axis_convention: mouse
    device = ModuleType("pyspacemouse.device")
    device.HIDException = type("HIDException", (Exception,), {})
    monkeypatch.setitem(sys.modules, "pyspacemouse", module)
    monkeypatch.setitem(sys.modules, "pyspacemouse.device", device)
    spacemouse = SpaceMouse("")
    assert "SpaceNavigator" in spacemouse.open()
    unplugged = mouse.reports.pop()
    moving, pressed = controls(spacemouse.poll(0.0), "spacemouse")
    assert moving == {"x": 1.0, "rz": -1.0}
    assert pressed == {"hold"}
    mouse.reports.append(unplugged)
    with pytest.raises(DeviceError, match="unplugged"):
        spacemouse.poll(0.0)
    spacemouse.close()
    assert mouse.closed
