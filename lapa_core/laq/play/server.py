# SPDX-License-Identifier: Apache-2.0
"""The page of `lapa laq play`: a starlette application over one `World`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from lapa_core.errors import ActionError
from lapa_core.laq.play.starts import Starts
from lapa_core.laq.play.world import World
from lapa_core.laq.report.sheets import change_picture
from lapa_core.local_page import application, object_in, png


class PlayPage:
    """The requests that the page makes, one at a time."""

    def __init__(self, world: World, starts: Starts, facts: dict[str, Any]):
        """Take the rollout; `facts` (tokens, codes, gap_s, image_px, policy) are handed to the page."""
        self._world, self._starts, self._facts = world, starts, facts
        self._lock = threading.Lock()
        self._run = 0

    def application(self, host: str) -> Starlette:
        """Return the application for one host."""
        actions = {
            "step": lambda asked: self._world.step(_codes_in(asked)),
            "policy": lambda asked: self._world.policy_step(_text_in(asked)),
            "undo": lambda asked: self._rewrite(self._world.undo),
            "reset": lambda asked: self._rewrite(self._world.reset),
            "next": self._next_start,
        }
        routes = [
            Route("/", self._page),
            Route("/state", self._state),
            Route("/film/{run:int}/{index:int}.png", self._picture),
            Route("/choices", self._choices),
            *(
                Route(f"/{name}", self._answer(act), methods=["POST"])
                for name, act in actions.items()
            ),
        ]
        return application(routes, host)

    def _answer(self, act: Callable[[dict[str, Any]], None]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(carry_out, object_in(await request.body()))

        def carry_out(asked: dict[str, Any]) -> Response:
            with self._lock:
                act(asked)
                return JSONResponse(self._describe())

        return endpoint

    def _rewrite(self, act: Callable[[], None]) -> None:
        """Change frames that were shown already: their addresses change, so that no cache shows the old ones."""
        act()
        self._run += 1

    def _next_start(self, asked: dict[str, Any]) -> None:
        start = self._world.start
        following = asked.get("episode", (start.episode + 1) % self._starts.episodes)
        if not isinstance(following, int):
            raise ActionError(f"episode is {following!r}; a whole number is needed")
        found = self._starts.read(following, 0)
        self._rewrite(lambda: self._world.reset(found))

    def _describe(self) -> dict[str, Any]:
        world = self._world
        return {
            **self._facts,
            "episode": world.start.episode,
            "frame": world.start.frame,
            "instruction": world.start.instruction,
            "episodes": self._starts.episodes,
            "played": world.played,
            "resting": world.resting(),
            "film": [f"/film/{self._run}/{i}.png" for i in range(len(world.film))],
        }

    def _page(self, request: Request) -> Response:
        return HTMLResponse(
            files("lapa_core.laq.play").joinpath("page.html").read_text(encoding="utf-8")
        )

    def _state(self, request: Request) -> Response:
        with self._lock:
            return JSONResponse(self._describe())

    def _picture(self, request: Request) -> Response:
        index = request.path_params["index"]
        with self._lock:
            film = self._world.film
            if request.path_params["run"] != self._run or index >= len(film):
                return JSONResponse({"error": f"there is no frame {index} in this film"}, 404)
            return _image(film[index])

    def _choices(self, request: Request) -> Response:
        """Answer with one picture per code at a position, one below the other in one PNG; `changes=1` marks changes."""
        codes = _codes_in({"codes": request.query_params.get("codes", "").split(",")})
        position = _codes_in({"codes": [request.query_params.get("position", "0")]})[0]
        with self._lock:
            present, pictures = self._world.film[-1], self._world.choices(codes, position)
        if request.query_params.get("changes") == "1":
            pictures = np.stack([change_picture(present, picture) for picture in pictures])
        return _image(np.concatenate(pictures, axis=0))


def _image(picture_HWC: NDArray[np.uint8]) -> Response:
    return Response(png(picture_HWC), media_type="image/png")


def _codes_in(asked: dict[str, Any]) -> tuple[int, ...]:
    try:
        return tuple(int(code) for code in asked["codes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ActionError(
            f"codes are {asked.get('codes')!r}; a list of whole numbers is needed"
        ) from error


def _text_in(asked: dict[str, Any]) -> str:
    text = asked.get("instruction", "")
    if not isinstance(text, str):
        raise ActionError(f"instruction is {text!r}; words are needed")
    return text
