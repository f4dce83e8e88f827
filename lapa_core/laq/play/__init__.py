# SPDX-License-Identifier: Apache-2.0
"""`lapa laq play`: a latent action model as a world model."""

from lapa_core.laq.play.config import LaqPlayConfig
from lapa_core.laq.play.run import main

__all__ = ["LaqPlayConfig", "main"]
