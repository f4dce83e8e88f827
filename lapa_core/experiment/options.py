# SPDX-License-Identifier: Apache-2.0
"""`lapa laq options`: train every option of the latent action model for the same time, probe it, print the table.

Time is CPU time of one thread, and the price of a step is measured in turns with the default's. Finished cells are
skipped, as in `lapa experiment`, whose runner this is.
"""

from __future__ import annotations

import logging
import sys

from lapa_core.errors import LapaError
from lapa_core.experiment.options_cells import option_cells, option_key
from lapa_core.experiment.options_config import LaqOptionsConfig
from lapa_core.experiment.options_table import option_table
from lapa_core.experiment.run import Suite, read_results, run_all

__all__ = ["SUITE", "LaqOptionsConfig", "main"]

SUITE = Suite(option_cells, option_key)


def main(config: LaqOptionsConfig) -> None:
    """Run the pending cells, then print the table.

    Raises:
        LapaError: cells failed; the finished ones are kept.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    failed = [] if config.summary else run_all(config, SUITE)
    sys.stdout.write(option_table(config, read_results(config.out)) + "\n")
    if failed:
        raise LapaError(
            f"{len(failed)} cell(s) did not finish: {', '.join(failed)}; the log says why. Run again to retry"
        )
