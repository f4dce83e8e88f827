# SPDX-License-Identifier: Apache-2.0
"""`teleop_input`: a device of this machine as `sensor_msgs/Joy`, at a fixed rate; silent while the device is gone."""

from __future__ import annotations

import sys

from sensor_msgs.msg import Joy

from lapa_ros import qos
from lapa_ros.diagnostics import ERROR, OK, Health
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.params import TeleopInputParams
from lapa_ros.teleop_devices import Device, DeviceError
from lapa_ros.teleop_joystick import Joystick
from lapa_ros.teleop_keyboard import Keyboard, parse_keys
from lapa_ros.teleop_spacemouse import SpaceMouse

RETRY_S = 1.0
"""How often a device that is gone is looked for [s]."""


def make_device(params: TeleopInputParams) -> Device:
    """Return the device that the parameters name, not yet opened."""
    if params.device == "keyboard":
        return Keyboard(parse_keys(params.keys), params.key_hold_s, params.path)
    return SpaceMouse(params.path) if params.device == "spacemouse" else Joystick(params.path)


class TeleopInputNode(ManagedNode):
    """Publishes joy."""

    def __init__(self, **kwargs: object):
        super().__init__("teleop_input", **kwargs)
        self._device: Device | None = None
        self._gone = ""

    def setup(self) -> None:
        """Open the device and make the topic."""
        self._device = make_device(self.params)
        self.get_logger().info(self._device.open())
        self._publisher = self.create_lifecycle_publisher(Joy, "joy", qos.JOINT_STATES)

    def start(self) -> None:
        """Begin to publish."""
        self._timer = self.create_timer(1.0 / self.params.rate_hz, self._tick)
        self._retry_timer = self.create_timer(RETRY_S, self._retry)

    def stop(self) -> None:
        """Fall silent, which lets go of the switch."""
        self.destroy_timer(self._timer)
        self.destroy_timer(self._retry_timer)

    def teardown(self) -> None:
        """Give the device back."""
        if self._device is not None:
            self._device.close()
            self._device = None

    def health(self) -> Health:
        """A device that is gone is an error."""
        return Health(
            ERROR if self._gone else OK, self._gone or "reading", {"device": self.params.device}
        )

    def _tick(self) -> None:
        if self._gone:
            return
        try:
            reading = self._device.poll(self.now_s())
        except DeviceError as error:
            self._device.close()
            self._gone = str(error)
            self._retry_timer.reset()  # silent for so long at least: the switch must be opened
            self.get_logger().error(f"{error}; silent until it is back")
            return
        message = Joy(axes=reading.axes, buttons=reading.buttons)
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _retry(self) -> None:
        if not self._gone:
            return
        try:
            self.get_logger().info(f"back: {self._device.open()}")
        except DeviceError as error:
            self._gone = str(error)
        else:
            self._gone = ""


def main() -> None:
    """Run the node."""
    sys.exit(run(TeleopInputNode))


if __name__ == "__main__":
    main()
