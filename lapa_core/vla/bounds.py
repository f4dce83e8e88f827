# SPDX-License-Identifier: Apache-2.0
"""Least values of a configuration's fields. Imports no torch."""

from __future__ import annotations

import math

from lapa_core.errors import ContractError


def at_least(config: object, **least_of: int) -> None:
    """Refuse a field that is below its least value or not finite.

    Raises:
        ContractError: one is.
    """
    for name, least in least_of.items():
        if not least <= (value := getattr(config, name)) < math.inf:
            raise ContractError(f"{name} is {value}; allowed is {least} and more")
