# SPDX-License-Identifier: Apache-2.0
"""`lapa serve`: a policy behind openpi's websocket protocol, and the client that makes it a `Policy` elsewhere."""

from lapa_core.serve.config import ServeConfig

__all__ = ["ServeConfig", "main"]


def main(config: ServeConfig) -> None:
    """Serve until a signal."""
    from lapa_core.serve.run import (
        main as serve,  # websockets comes with it, which not every robot PC has
    )

    serve(config)
