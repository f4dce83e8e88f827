# SPDX-License-Identifier: Apache-2.0
"""The comparison of the README, cell by cell: LAPA, SCRATCH, VPT, UniPi, ActionVLA and OpenVLA's recipe over few labels."""

from lapa_core.experiment.config import ExperimentConfig
from lapa_core.experiment.run import main

__all__ = ["ExperimentConfig", "main"]
