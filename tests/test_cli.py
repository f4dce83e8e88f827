# SPDX-License-Identifier: Apache-2.0
"""The command line: every verb exists and explains itself; wrong words get help, not a traceback."""

import importlib
import subprocess
import sys

import pytest

from lapa_core import cli


def test_overview_is_fast_and_imports_no_torch():
    code = "import sys; from lapa_core.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert all(verb.words in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize(
    "verb", [v for v in cli.VERBS if v.config.startswith("lapa_core")], ids=lambda v: v.words
)
def test_every_verb_has_its_config_and_explains_it(verb, capsys):
    module, config = verb.config.split(":")
    assert hasattr(importlib.import_module(module), config)
    with pytest.raises(SystemExit) as stop:
        cli.run(verb, ["--help"])
    assert stop.value.code == 0
    assert f"lapa {verb.words}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lak", "train"], "did you mean `lapa laq train`"),
        (["laq", "trian"], "did you mean `lapa laq train`"),
    ],
)
def test_typos_get_a_suggestion(words, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert message in str(stop.value.code)


def test_an_error_is_one_line_and_a_status(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", "info", "--path", "no/such/folder"])
    assert stop.value.code != 0
    assert "Traceback" not in str(stop.value.code) + capsys.readouterr().err


@pytest.mark.parametrize("device", ["cudda", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_said_in_words(device):
    with pytest.raises(SystemExit) as stop:
        cli.main(["eval", "--device", device])
    assert f"device is '{device}'" in str(stop.value.code)
