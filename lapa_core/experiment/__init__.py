# SPDX-License-Identifier: Apache-2.0
"""The comparison of the README, cell by cell: six ways to a policy from videos and few labels."""

from lapa_core.experiment.config import ExperimentConfig
from lapa_core.experiment.run import main

__all__ = ["ExperimentConfig", "main"]
