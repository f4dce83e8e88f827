# SPDX-License-Identifier: Apache-2.0
"""`lapa serve`: a policy behind openpi's websocket protocol, and the client that makes it a `Policy` elsewhere."""

from lapa_core.serve.config import ServeConfig
from lapa_core.serve.run import main

__all__ = ["ServeConfig", "main"]
