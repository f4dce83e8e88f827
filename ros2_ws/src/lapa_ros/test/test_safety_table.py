# SPDX-License-Identifier: Apache-2.0
"""The fault table of docs/safety.md names tests that exist."""

import re
from pathlib import Path

import pytest

from lapa_core.paths import config_dir

TABLE = config_dir().parent / "docs" / "safety.md"
TESTS = Path(__file__).resolve().parent


@pytest.mark.skipif(not TABLE.is_file(), reason="only in the source tree")
def test_every_test_that_the_fault_table_names_exists():
    named = re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)", TABLE.read_text())
    assert len(named) > 15
    for file, test in named:
        path = TABLE.parent.parent / file if "/" in file else TESTS / file
        assert f"def {test}" in path.read_text(), f"{file}::{test}"
