# SPDX-License-Identifier: Apache-2.0
"""Motors that take time, saturate, refuse and fail, as far as an arm node can tell. No ROS; the clock is passed in.

What is modelled: the time profile (linear, without its acceleration), the bus's delay, the speed limit, position
limits in the motor, torque, the error bits, fingers that meet an object, an arm that sinks without torque, a joint that
its load keeps from its goal. What is not: inertia, friction, temperature.
"""

from __future__ import annotations

from collections import deque

OVERLOAD = 1 << 5
"""Bit of Hardware_Error_Status."""
RAM = {"Hardware_Error_Status": 0, "Profile_Velocity": 0, "Profile_Acceleration": 0}
"""Registers as they are after a reboot."""


class FakeMotor:
    """One joint [rad], or the fingers by their gap [m].

    Attributes:
        position: where it is.
        registers: Torque_Enable, Hardware_Error_Status, Profile_Velocity [ms], Profile_Acceleration [ms], gains.
        stuck: whether something blocks it.
        sag: how far from its goal its load keeps it.
        refusals: goals that it did not take: outside its limits, or without torque.
    """

    DELAY_S = 0.008
    """From a command's arrival to its effect: the serial bus [s]."""

    def __init__(self, position: float, low: float, high: float, speed: float, rest: float | None):
        """Limits `low` to `high`, `speed` per second; without torque it sinks to `rest`, None: it stays."""
        self.position, self.stuck, self.sag, self.refusals = position, False, 0.0, 0
        self.registers = {
            "Torque_Enable": 1, "Hardware_Error_Status": 0, "Profile_Velocity": 2000, "Profile_Acceleration": 300,
        }  # fmt: skip
        self._low, self._high, self._speed, self._rest = low, high, speed, rest
        self._waiting: deque[tuple[float, float]] = deque()
        self._goal = self._start = position
        self._began_s = float("-inf")

    def command(self, goal: float, now_s: float) -> None:
        """Take a goal, or refuse it as a motor does: silently."""
        if not self._low <= goal <= self._high or not self.registers["Torque_Enable"]:
            self.refusals += 1
            return
        self._waiting.append((now_s + self.DELAY_S, goal))

    def set_torque(self, on: bool) -> None:
        """Switch the torque; a motor that gets it holds where it is."""
        self.registers["Torque_Enable"] = int(on)
        self._waiting.clear()
        self._goal = self._start = self.position

    def fail(self, bits: int) -> None:
        """Set error bits; the motor lets go, as its Shutdown register says."""
        self.registers["Hardware_Error_Status"] |= bits
        self.set_torque(False)

    def reboot(self, *, on: bool) -> None:
        """Forget errors and profile; hold afterwards or not."""
        self.registers |= RAM
        self.set_torque(on)

    def step(self, now_s: float, dt_s: float) -> None:
        """Move for `dt_s` up to `now_s`."""
        while self._waiting and self._waiting[0][0] <= now_s:
            self._began_s, self._goal = self._waiting.popleft()
            self._start = self.position - self.sag
        if self.stuck:
            return
        if self.registers["Torque_Enable"]:
            duration_s = max(self.registers["Profile_Velocity"] * 1e-3, 1e-3)
            share = min(1.0, (now_s - self._began_s) / duration_s)
            aim = self._start + (self._goal - self._start) * share
            self._move_to(aim + self.sag, self._speed * dt_s)
        elif self._rest is not None:
            self._move_to(self._rest, 1.0 * dt_s)

    def _move_to(self, target: float, most: float) -> None:
        self.position += min(max(target - self.position, -most), most)


class FakeFingers(FakeMotor):
    """The gripper by its gap [m]; it overloads when it presses on an object for too long.

    Attributes:
        object_m: width of what is between the fingers [m]; 0 is nothing.
    """

    PRESS_M = 0.004
    """A goal further than this below the object presses with more than the motor bears [m]."""
    OVERLOAD_S = 1.5

    def __init__(self, gap_m: float, low_m: float, high_m: float):
        super().__init__(gap_m, low_m, high_m, speed=0.15, rest=None)
        self.object_m = 0.0
        self._pressing_s = 0.0

    def step(self, now_s: float, dt_s: float) -> None:
        """Move for `dt_s`; the object stops the fingers."""
        before_m = self.position
        super().step(now_s, dt_s)
        blocked = self.position < self.object_m <= before_m
        if blocked:
            self.position = self.object_m
        pressing = blocked and self._goal < self.object_m - self.PRESS_M
        self._pressing_s = self._pressing_s + dt_s if pressing else 0.0
        if self._pressing_s > self.OVERLOAD_S:
            self.fail(OVERLOAD)
