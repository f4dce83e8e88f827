# SPDX-License-Identifier: Apache-2.0
# For a shell that works in the graph, from the clone's root: `. setup/env.sh`. `lapa` itself does not need it.
. .venv/bin/activate
if [ -z "$ROS_DISTRO" ]; then
    export AMENT_PREFIX_PATH="$VIRTUAL_ENV"
fi
. ros2_ws/install/local_setup.sh
