# SPDX-License-Identifier: Apache-2.0
"""`lapa laq report`: one page that answers whether a latent action model is good."""

from lapa_core.laq.report.config import LaqReportConfig
from lapa_core.laq.report.run import main

__all__ = ["LaqReportConfig", "main"]
