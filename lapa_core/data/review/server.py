# SPDX-License-Identifier: Apache-2.0
"""The review page: a starlette application over the recordings of one folder."""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from lapa_core.data.curation import add_mark, load_marks, read_mark
from lapa_core.data.judge import UNFINISHED, Judged, judge, list_recordings
from lapa_core.data.review.run import DataReviewConfig
from lapa_core.data.review.sheet import describe, strip
from lapa_core.errors import DataError
from lapa_core.local_page import application, object_in, png
from lapa_core.robot.contract import load_contract


class Review:
    """The recordings of a folder, judged as their marks stand; safe to use from several threads."""

    def __init__(self, config: DataReviewConfig):
        """List the recordings; `read_all` reads them.

        Raises:
            DataError: there is none, or `curation.jsonl` is malformed.
            ContractError: the contract does not exist.
        """
        self.folder = config.recordings
        self._limits = config.limits
        self._contract = load_contract(config.contract) if config.contract else None
        found = [p for p in list_recordings(self.folder) if not p.name.endswith(UNFINISHED)]
        self.names = [path.relative_to(self.folder).as_posix() for path in found]
        self._marks = load_marks(self.folder)
        self._facts: dict[str, dict[str, Any]] = {}
        self._lock, self._judging = threading.Lock(), threading.Lock()
        self.strip = lru_cache(maxsize=512)(self._strip)

    def read_all(self) -> None:
        """Judge every recording that was not judged yet."""
        for name in self.names:
            if name not in self._facts:
                self._judge(name)

    def facts(self) -> list[dict[str, Any]]:
        """Return the facts of the recordings that have been read, in order."""
        with self._lock:
            return [self._facts[name] for name in self.names if name in self._facts]

    def decide(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Write a decision down, and return the recording's facts as they stand now.

        Raises:
            DataError: no such recording, or a decision that makes no sense.
        """
        mark = read_mark(json.dumps(asked), "the request")
        self._path(mark.episode)
        with self._lock:
            add_mark(self.folder, mark)
            self._marks[mark.episode] = mark
        self._judge(mark.episode)
        return self._facts[mark.episode]

    def summary(self) -> str:
        """Say what has been decided."""
        facts = self.facts()
        dropped = sum(f["mark"] is not None and not f["mark"]["keep"] for f in facts)
        good = sum(not f["refusals"] for f in facts)
        return f"{len(facts)} of {len(self.names)} recordings read: {good} to be exported, {dropped} dropped by you"

    def _judge(self, name: str) -> None:
        with self._judging:  # one at a time: what was read under an older decision never comes last
            self._judge_now(name)

    def _judge_now(self, name: str) -> None:
        with self._lock:
            mark = self._marks.get(name)
        judged = self._read(name)
        if mark is not None:
            decided = judge(
                self._path(name), contract=self._contract, limits=self._limits, mark=mark
            )
            # A dropped one is shown as it was recorded, with the reason why it is out.
            judged = Judged(
                report=decided.report if mark.keep else judged.report,
                recording=judged.recording,
                rows=judged.rows,
                topics=judged.topics,
                contract=judged.contract,
            )
        facts = describe(judged, self.folder, mark)
        if mark is not None and not mark.keep:
            facts["refusals"] = ["dropped by a reviewer", *facts["refusals"]]
        with self._lock:
            self._facts[name] = facts

    def _read(self, name: str) -> Judged:
        return judge(self._path(name), contract=self._contract, limits=self._limits)

    def _strip(self, name: str) -> bytes:
        return png(strip(self._read(name)))

    def _path(self, name: str) -> Path:
        if name not in self.names:
            raise DataError(f"{name!r} is no recording of {self.folder}")
        return self.folder / name


class ReviewPage:
    """The requests that the page makes."""

    def __init__(self, review: Review):
        self._review = review

    def application(self, host: str) -> Starlette:
        """Return the application for one host."""
        routes = [
            Route("/", self._page),
            Route("/episodes", self._episodes),
            Route("/strip/{name:path}", self._strip),
            Route("/decide", self._decide, methods=["POST"]),
        ]
        return application(routes, host)

    def _page(self, request: Request) -> Response:
        page = files("lapa_core.data.review").joinpath("page.html")
        return HTMLResponse(page.read_text(encoding="utf-8"))

    def _episodes(self, request: Request) -> Response:
        review = self._review
        return JSONResponse(
            {
                "folder": str(review.folder),
                "total": len(review.names),
                "episodes": review.facts(),
            }
        )

    def _strip(self, request: Request) -> Response:
        return Response(self._review.strip(request.path_params["name"]), media_type="image/png")

    async def _decide(self, request: Request) -> Response:
        asked = object_in(await request.body())
        return JSONResponse(await run_in_threadpool(self._review.decide, asked))
