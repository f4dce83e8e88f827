# SPDX-License-Identifier: Apache-2.0
"""JSON that people read: an entry per line, and a list of numbers on one."""

from __future__ import annotations

import json
import re
from typing import Any

_NUMBERS = re.compile(r"\[\s*(-?\d[-+.\deE,\s]*?)\s*\]")


def readable(document: Any) -> str:
    """Return a document as JSON text whose lists of numbers do not take a line per number.

    Strings are left as they are: a line break, by which such a list is told, is written as two characters in them.
    """
    text = json.dumps(document, indent=1)
    return _NUMBERS.sub(lambda found: _on_one_line(found[0]), text)


def _on_one_line(numbers: str) -> str:
    if "\n" not in numbers:
        return numbers
    return re.sub(r"\s+", " ", numbers).replace("[ ", "[").replace(" ]", "]")
