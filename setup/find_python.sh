#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Print the Python 3.10 to 3.12 to set up with: that of an existing .venv, else the first one on the path, where
# the system's own comes first because a sourced ROS 2 needs it.
for python in "$(readlink -f .venv/bin/python)" python3 python3.12 python3.11 python3.10; do
    if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
        command -v "$python"
        exit 0
    fi
done
echo "No Python 3.10 to 3.12 on the path (tried python3, python3.12, python3.11, python3.10)." >&2
echo "Install one, or name it: make ... PYTHON=python3.12 with its path" >&2
# What make then runs as the interpreter: fails, and says nothing more.
echo false
