# SPDX-License-Identifier: Apache-2.0
"""Configuration and start of the review page."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from lapa_core.data.recorded_rows import RowLimits
from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class DataReviewConfig:
    """Look at every recording of a folder on a local page, and keep, drop or trim it.

    Decisions are written beside the recordings, in `curation.jsonl`, at once; `lapa data export` obeys them.
    Recordings are never edited.
    """

    recordings: Path
    """Folder that the recorder wrote to."""
    contract: str = ""
    """Robot contract, a name or a path; empty takes the one that each recording names."""
    limits: RowLimits = field(default_factory=RowLimits)
    """What an episode must satisfy to be exported."""
    host: str = "127.0.0.1"
    """Address to serve on; the default is reachable from this machine only."""
    port: int = 8711
    """Port to serve on; 0 takes a free one."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ContractError(f"port is {self.port}; allowed is 0 to 65535")


def main(config: DataReviewConfig) -> None:
    """Serve the page until Ctrl-C; recordings are read one after another while it is open already."""
    from lapa_core.data.review.server import Review, ReviewPage
    from lapa_core.listen import listen, place
    from lapa_core.local_page import serve

    review = Review(replace(config, recordings=config.recordings.resolve()))
    taken = listen(config.host, config.port)
    threading.Thread(target=review.read_all, name="read recordings", daemon=True).start()
    print(f"review: http://{place(config.host, taken)}  (Ctrl-C ends it)", flush=True)
    serve(ReviewPage(review).application(config.host), taken)
    print(f"stopped; {review.summary()}")
