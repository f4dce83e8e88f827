# SPDX-License-Identifier: Apache-2.0
"""A second graph in one ROS domain: its nodes have the names of ours and hear our topics, and we theirs. No ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Namesakes:
    """Looks for other nodes of one node's name; says it once when one comes, and when it is gone."""

    def __init__(self, name: str, domain: int, say: Callable[[str, str], None]):
        """Look for `name`, fully qualified, in a ROS domain; `say` takes a level and a sentence."""
        self._name, self._domain, self._say = name, domain, say
        self._met = False

    def look(self, nodes: Iterable[tuple[str, str]]) -> str:
        """Return what is wrong when more than one of `nodes`, as (name, namespace), has the name; else ""."""
        count = sum(f"{space.rstrip('/')}/{name}" == self._name for name, space in nodes)
        if count < 2:
            if self._met:
                self._say("info", f"over: there is one {self._name} only")
            self._met = False
            return ""
        text = (
            f"{count} nodes are called {self._name} in ROS domain {self._domain}, and each hears the topics of all; "
            "stop the other graph, or give it another ROS_DOMAIN_ID or robot_name "
            "(a node that was killed counts for 20 s)"
        )
        if not self._met:
            self._say("warn", text)
        self._met = True
        return text
