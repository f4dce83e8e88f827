# SPDX-License-Identifier: Apache-2.0
"""`lapa data review`: every recording on one page, to keep, drop or trim."""

from lapa_core.data.review.run import DataReviewConfig, main

__all__ = ["DataReviewConfig", "main"]
