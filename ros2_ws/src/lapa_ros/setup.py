# SPDX-License-Identifier: Apache-2.0
from setuptools import setup

PACKAGE = "lapa_ros"
NODES = (
    "arm",
    "evaluate",
    "operator",
    "policy",
    "recorder",
    "replay",
    "session",
    "sim",
    "teleop",
    "teleop_input",
)

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=[PACKAGE, f"{PACKAGE}.fake_driver"],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    zip_safe=False,
    description="LAPA's ROS 2 nodes",
    license="Apache-2.0",
    maintainer="LAPA robotics developers",
    maintainer_email="lapa-robotics@users.noreply.github.com",
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": [
            *(f"{node}_node = {PACKAGE}.{node}_node:main" for node in NODES),
            f"fake_driver_node = {PACKAGE}.fake_driver.node:main",
        ],
    },
)
