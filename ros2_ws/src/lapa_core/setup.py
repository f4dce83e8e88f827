# SPDX-License-Identifier: Apache-2.0
"""The colcon side of lapa_core; pip's is the repository's pyproject.toml."""

from setuptools import find_packages, setup

PACKAGE = "lapa_core"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    include_package_data=True,
    package_data={PACKAGE: ["**/*.yaml", "**/*.json", "**/*.safetensors", "**/*.html", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    zip_safe=False,
    description="LAPA without ROS",
    license="Apache-2.0",
    maintainer="LAPA robotics developers",
    maintainer_email="lapa-robotics@users.noreply.github.com",
    extras_require={"test": ["pytest"]},
)
