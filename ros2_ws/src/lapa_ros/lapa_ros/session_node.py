# SPDX-License-Identifier: Apache-2.0
"""`session`: leads an operator through a session file, episode by episode, with the recorder at hand."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from lapa_msgs.msg import RecorderState, SessionState
from lapa_msgs.srv import StartEpisode, StopEpisode
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_srvs.srv import Trigger

from lapa_core.data.curation import mark_of
from lapa_core.data.judge import EpisodeReport, judge
from lapa_core.data.recorded_rows import RowLimits
from lapa_core.errors import ContractError, DataError
from lapa_core.robot.contract import load_contract
from lapa_ros import qos
from lapa_ros.clock import to_seconds, to_stamp
from lapa_ros.diagnostics import OK, WARN, Health
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.remote import GraphError, call, in_thread
from lapa_ros.scene import SceneControl
from lapa_ros.session_logic import SUCCESS, SessionProgress
from lapa_ros.session_plan import Slot, load_session
from lapa_ros.session_watch import EpisodeWatch

SETUP, RECORDING, BUSY, DONE = (
    SessionState.PHASE_SETUP,
    SessionState.PHASE_RECORDING,
    SessionState.PHASE_BUSY,
    SessionState.PHASE_DONE,
)

STATUS_PERIOD_S = 5.0
"""How often the figures of an open episode are logged [s]."""


class SessionNode(ManagedNode):
    """Serves ~/record, ~/save, ~/discard, ~/redo and ~/undo; calls the recorder; publishes session_state."""

    def __init__(self, **kwargs: object):
        super().__init__("session", **kwargs)

    def setup(self) -> None:
        """Read the session file, look how far the folder is, and make services, clients and the topic."""
        params = self.params
        self._contract = load_contract(params.contract)
        plan = load_session(params.session)
        self._operator = params.operator_name or plan.operator
        if not self._operator.strip():
            raise ContractError(
                "nobody is named as operator: set `operator` in the session file, or operator_name"
            )
        self._limits = RowLimits(
            max_staleness_s=params.max_staleness_s, max_gap_s=params.max_gap_s,
            max_rate_deviation=params.max_rate_deviation,
            max_dropped_fraction=params.max_dropped_fraction, min_rows=params.min_rows,
            max_still_share=params.max_still_share, max_saturated_share=params.max_saturated_share,
        )  # fmt: skip
        folder = Path(params.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._progress = SessionProgress(plan, folder)
        for sentence in self._progress.unreadable:
            self.get_logger().warning(f"not counted: {sentence}")
        self._judge_newest()
        self._slot = self._progress.next_slot()
        self._recorder: RecorderState | None = None
        self._open_id, self._ended_id, self._opened_s = "", "", 0.0
        self._heard_s = time.monotonic()
        self._watch = EpisodeWatch(self._limits, self._contract.control_rate_hz, self.say)
        self._phase = self._phase_at_rest()
        self._message = ""
        self._begun_s, self._before = time.monotonic(), self._progress.num_kept
        self._stopped = threading.Event()
        self._scene = SceneControl(self) if params.lay_out else None
        self._recorder_start = self.create_client(StartEpisode, "recorder/start")
        self._recorder_stop = self.create_client(StopEpisode, "recorder/stop")
        for kind, topic, hear in (
            (RecorderState, "recorder_state", self._on_recorder),
            (DiagnosticStatus, "recorder_quality", self._on_quality),
        ):
            self.create_subscription(kind, topic, hear, qos.STATE)
        self._publisher = self.create_lifecycle_publisher(SessionState, "session_state", qos.STATE)
        verbs: dict[str, tuple[int, Callable[[], str]]] = {
            "record": (SETUP, self._record),
            "save": (RECORDING, self._save),
            "discard": (RECORDING, self._discard),
            "redo": (RECORDING, self._redo),
            "undo": (SETUP, self._undo),
        }
        alone = (
            MutuallyExclusiveCallbackGroup()
        )  # a verb awaits answers that arrive in the other group
        for name, (phase, act) in verbs.items():
            serve = partial(self._serve, name, phase, act)
            self.create_service(Trigger, f"~/{name}", serve, callback_group=alone)

    def start(self) -> None:
        """Say what comes first."""
        self._stopped.clear()
        self._timer = self.create_timer(1.0 / self.params.state_rate_hz, self._look)
        self._status_timer = self.create_timer(STATUS_PERIOD_S, self._log_figures)
        self._tell("")

    def stop(self) -> None:
        """Fall silent; an open episode is the recorder's to end."""
        self._stopped.set()
        self.destroy_timer(self._timer)
        self.destroy_timer(self._status_timer)

    def may_shut_down(self) -> bool:
        """Return whether no episode is being closed and judged."""
        return self._phase != BUSY

    def health(self) -> Health:
        """Progress; while an episode is open, its figures too, and what would keep it out."""
        kept, wanted = self._progress.num_kept, self._progress.plan.num_wanted
        values: dict[str, object] = {"rate [1/h]": self._rate_per_h()}
        text = f"{kept} of {wanted} episodes"
        if self._phase != RECORDING:
            return Health(OK, text, values)
        if self._watch.quality is not None:
            values |= self._watch.quality.to_figures()
        problems = self._watch.problems()
        return Health(WARN if problems else OK, f"{text}; {problems or 'recording'}", values)

    async def _serve(
        self, name: str, phase: int, act: Callable[[], str], _: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:  # fmt: skip
        """Do one verb in a thread: it waits for the recorder, the disk and the judge."""
        undo_at_the_end = name == "undo" and self._phase == DONE
        if not self.active or (self._phase != phase and not undo_at_the_end):
            response.message = f"{name} is not possible now: {self._sentence()}"
            self.get_logger().warning(response.message)
            return response
        self._phase = BUSY
        self._publish_state()
        try:
            said = await in_thread(self, act)
            response.success = True
        except (GraphError, DataError, OSError) as error:
            said = str(error)
        self._phase = self._phase_at_rest()
        response.message = self._tell(said)
        return response

    def _phase_at_rest(self) -> int:
        return RECORDING if self._open_id else DONE if self._slot is None else SETUP

    def _on_recorder(self, state: RecorderState) -> None:
        """Notice an episode that ended without a verb: the recorder was started anew, or the disk is full."""
        self._heard_s, self._recorder = time.monotonic(), state
        recording = state.state == RecorderState.STATE_RECORDING
        same = recording and state.episode_id == self._open_id
        if (
            self._phase == RECORDING
            and to_seconds(state.header.stamp) > self._opened_s
            and not same
        ):
            self._open_id = ""
            self._phase = self._phase_at_rest()
            why = f": {state.message}" if state.message else ""
            self._tell(f"the recorder has ended the episode by itself{why}; once more please")

    def _on_quality(self, status: DiagnosticStatus) -> None:
        if self._phase == RECORDING and status.hardware_id == self._open_id:
            figures = {value.key: value.value for value in status.values}
            self._watch.hear(figures, "" if status.level == OK else status.message, self.now_s())

    def _look(self) -> None:
        if self._phase == RECORDING:
            self._watch.look(time.monotonic() - self._heard_s, self.now_s())
        self._publish_state()

    def _log_figures(self) -> None:
        if self._phase == RECORDING and (figures := self._watch.figures()):
            self.get_logger().info(figures)

    def _record(self) -> str:
        assert self._slot is not None
        self._begin(self._slot)
        return ""

    def _save(self) -> str:
        path = self._end(save=True)
        report = self._judge(path, self._limits)
        if reasons := "; ".join(report.rows.refusals):
            return f"NOT KEPT, once more please: {reasons}"
        self._progress.keep(path)
        self._slot = self._progress.next_slot()
        return f"kept {report.line()}"

    def _judge(self, path: Path, limits: RowLimits) -> EpisodeReport:
        """Return what a recording is worth; one that is not whole is dropped."""
        mark = mark_of(path)
        report = judge(path, contract=self._contract, limits=limits, mark=mark).report
        if reasons := "; ".join(report.rows.refusals):
            self._progress.drop(path, f"not whole: {reasons}")
        return report

    def _judge_newest(self) -> None:
        """Judge the last recording that counts: a node that was killed in between has saved it and not judged it.

        By the limits that it was recorded under: one that was judged then gets the same verdict.
        """
        newest = self._progress.newest()
        if newest is None or newest.contract_hash != self._contract.hash:
            return
        report = self._judge(newest.path, newest.limits or self._limits)
        if report.rows.refusals:
            self.get_logger().warning(f"not kept: {report.line()}")

    def _discard(self) -> str:
        self._end(save=False)
        return "discarded"

    def _redo(self) -> str:
        self._end(save=False)
        assert self._slot is not None
        self._begin(self._slot)
        return "discarded; recording anew"

    def _undo(self) -> str:
        path = self._progress.undo()
        self._slot = self._progress.next_slot()
        return f"{path.name} counts no more"

    def _begin(self, slot: Slot) -> None:
        if self._scene is not None:
            self._scene.reset(slot.seed, slot.instruction, self._stopped)
        request = StartEpisode.Request(
            instruction=slot.instruction, operator_name=self._operator,
            metadata_json=self._progress.facts(slot, self._limits),
        )  # fmt: skip
        self._watch.begin()
        self._end_left_open()
        self._open_id = call(self._recorder_start, request).episode_id
        self._opened_s = self.now_s()

    def _end_left_open(self) -> None:
        """End an episode that was left open, by a session node that was killed or a recorder that did not answer."""
        state = self._recorder
        if state is None or state.state != RecorderState.STATE_RECORDING:
            return
        if state.episode_id != self._ended_id:  # the state may be from before its end
            self.get_logger().warning(
                f"{state.episode_id} was left open; it is kept as interrupted"
            )
            request = StopEpisode.Request(save=True, outcome="interrupted")
            call(self._recorder_stop, request, timeout_s=30.0)

    def _end(self, save: bool) -> Path:
        outcome = SUCCESS if save else "discarded"
        ended_id, self._open_id = self._open_id, ""
        answer = call(
            self._recorder_stop, StopEpisode.Request(save=save, outcome=outcome), timeout_s=30.0
        )
        self._ended_id = ended_id
        path = self._progress.folder / Path(answer.path).name
        if save and not path.is_file():
            raise DataError(
                f"the recorder wrote {answer.path}, this session counts {self._progress.folder}; "
                "give both nodes the same folder"
            )
        return path

    def _tell(self, said: str) -> str:
        """Log and publish what happened and what comes next; return both."""
        self._message = said
        text = f"{said}{'. ' if said else ''}{self._sentence()}"
        self.get_logger().info(text)
        self._publish_state()
        return text

    def _sentence(self) -> str:
        progress, slot = self._progress, self._slot
        count = f"{progress.num_kept} of {progress.plan.num_wanted} kept"
        if (rate_per_h := self._rate_per_h()) > 0:
            count += f", {rate_per_h:.0f} an hour"
        if self._phase == DONE or slot is None:
            return f"done: {count}"
        if self._phase == BUSY:
            return "the recorder is busy"
        if self._phase == RECORDING:
            return f"RECORDING {slot.instruction!r}"
        task = (
            f"{slot.task} {progress.task_kept(slot.task)}/{progress.plan.tasks[slot.task].episodes}"
        )
        layout = f", lay out: {slot.layout}" if slot.layout else ""
        return f"next: {slot.instruction!r}{layout} ({task}, {count})"

    def _status(self) -> str:
        """Return what happened last; while an episode is open, what it is like and what is wrong with it."""
        if self._phase != RECORDING:
            return self._message
        return (
            "; ".join(filter(None, [self._watch.problems(), self._watch.figures()]))
            or self._message
        )

    def _rate_per_h(self) -> float:
        kept = self._progress.num_kept - self._before
        hours = (time.monotonic() - self._begun_s) / 3600.0
        return kept / hours if kept > 1 else 0.0

    def _publish_state(self) -> None:
        progress, slot = self._progress, self._slot
        state = SessionState(
            session=progress.plan.name, phase=self._phase, num_kept=progress.num_kept,
            num_wanted=progress.plan.num_wanted, rate_per_h=self._rate_per_h(), message=self._status(),
        )  # fmt: skip
        state.header.stamp = to_stamp(self.now_s())
        if slot is not None:
            task = progress.plan.tasks[slot.task]
            state.task, state.instruction, state.layout = slot.task, slot.instruction, slot.layout
            state.objects, state.seed = list(task.objects), slot.seed
            state.task_kept, state.task_wanted = progress.task_kept(slot.task), task.episodes
        self._publisher.publish(state)


def main() -> None:
    """Run the node."""
    sys.exit(run(SessionNode))


if __name__ == "__main__":
    main()
