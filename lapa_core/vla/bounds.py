# SPDX-License-Identifier: Apache-2.0
"""Least values of a configuration's fields. Imports no torch."""

from __future__ import annotations

from lapa_core.errors import ContractError


def at_least(config: object, **least_of: int) -> None:
    """Refuse a field below its least value.

    Raises:
        ContractError: it is.
    """
    for name, least in least_of.items():
        if (value := getattr(config, name)) < least:
            raise ContractError(f"{name} is {value}; allowed is {least} and more")
