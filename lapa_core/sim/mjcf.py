# SPDX-License-Identifier: Apache-2.0
"""One helper to write MJCF elements with numbers for attributes. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement

Attribute: TypeAlias = "str | float | Iterable[float]"


def add(parent: Element, tag: str, **attributes: Attribute) -> Element:
    """Append an element to `parent` and return it; floats are written so that they read back exactly."""
    return SubElement(parent, tag, {name: _text(value) for name, value in attributes.items()})


def _text(value: Attribute) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return " ".join(repr(float(number)) for number in value)
    return repr(value) if isinstance(value, int) else repr(float(value))
