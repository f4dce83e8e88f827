# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: leads the policy through instructions, prints a table, writes video and summary; then ends."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from lapa_core.errors import LapaError
from lapa_core.robot.contract import load_contract
from lapa_ros.diagnostics import OK, Health
from lapa_ros.evaluator import Evaluator, broken_loop
from lapa_ros.filming import write_contact_sheet, write_video
from lapa_ros.lifecycle import run
from lapa_ros.remote import GraphError
from lapa_ros.scores import summary, table, write_summary
from lapa_ros.worker_node import WorkerNode

VIDEO_RATE_HZ = 10.0
"""Rate at which the graph's sim node publishes its spectator view."""


class EvaluateNode(WorkerNode):
    """Client of the sim, arm and policy nodes. Its report goes to standard output, its log to standard error."""

    def __init__(self, **kwargs: object):
        super().__init__("evaluate", **kwargs)

    def setup(self) -> None:
        """Make the folder and the clients."""
        contract = load_contract(self.params.contract)
        self._out = Path(self.params.out)
        self._out.mkdir(parents=True, exist_ok=True)
        self._print = partial(print, flush=True)
        self._evaluator = Evaluator(
            self, episodes=self.params.episodes, seed=self.params.seed, report=self._print,
            max_duration_s=self.params.max_steps / contract.control_rate_hz,
        )  # fmt: skip

    def health(self) -> Health:
        """Progress."""
        done = len(self._evaluator.scores)
        return Health(OK, f"{done} of {self.params.episodes} episodes", {"episodes": done})

    def work(self) -> None:
        """Run and report.

        Raises:
            GraphError: the loop did not close.
        """
        evaluator, problem = self._evaluator, ""
        try:
            evaluator.run(self.stop_asked)
        except LapaError as error:
            problem = str(error)
        tally = evaluator.tally
        figures = summary(evaluator.scores, tally.latencies_s, tally.applied, tally.refused)
        problem = problem or broken_loop(evaluator)
        write_summary(self._out / "summary.json", {**figures, "problem": problem})
        clips = evaluator.film.clips
        if self.params.video and any(clip.jpegs for clip in clips):
            write_video(self._out / "episodes.mp4", clips, VIDEO_RATE_HZ)
            write_contact_sheet(self._out / "contact_sheet.png", clips)
        self._print(f"\n{table(figures)}\n")
        self._print("\n".join(str(path) for path in sorted(self._out.iterdir()) if path.is_file()))
        if problem:
            raise GraphError(f"the loop did not close: {problem}")


def main() -> None:
    """Run the node."""
    sys.exit(run(EvaluateNode))


if __name__ == "__main__":
    main()
