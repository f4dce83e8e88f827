# SPDX-License-Identifier: Apache-2.0
"""`lapa laq options`: train every option of the latent action model for the same time, probe it, print the table.

Time is CPU time of one thread, and the price of a step is measured in turns with the default's. Finished cells are
skipped, as in `lapa experiment`, whose runner this is.
"""

from __future__ import annotations

from lapa_core.experiment.options_cells import option_cells, option_key
from lapa_core.experiment.options_config import LaqOptionsConfig
from lapa_core.experiment.options_table import option_table
from lapa_core.experiment.run import Suite, run_and_show

__all__ = ["SUITE", "LaqOptionsConfig", "main"]

SUITE = Suite(option_cells, option_key)


def main(config: LaqOptionsConfig) -> None:
    """Run the pending cells, then print the table."""
    run_and_show(config, SUITE, lambda rows: print(option_table(config, rows)))
