# SPDX-License-Identifier: Apache-2.0
"""Readable JSON says what the plain one says."""

import json

import pytest

from lapa_core.json_text import readable


@pytest.mark.parametrize(
    "document",
    [
        {
            "shapes": {"a": [4096, 11008], "b": []},
            "text": "[\n 1,\n 2]",
            "deep": [[1, -2.5e-7], ["x", 3]],
        },
        [1, 2, 3],
        {"text": "[1, 2", "more": "3]", "flags": [True, None]},
    ],
)
def test_the_document_stays_the_same(document):
    assert json.loads(readable(document)) == document


def test_numbers_share_a_line():
    assert readable({"a": [4096, 11008]}) == '{\n "a": [4096, 11008]\n}'
