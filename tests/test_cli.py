# SPDX-License-Identifier: Apache-2.0
"""The command line: every verb exists and explains itself; wrong words get help, not a traceback."""

import importlib
import io
import subprocess
import sys

import pytest

from lapa_core import cli
from lapa_core.terminal import passing_note


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_note_passes_and_only_on_a_terminal(monkeypatch, is_terminal):
    screen = io.StringIO()
    screen.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", screen)
    with passing_note("loading"):
        during = screen.getvalue()
    assert during == ("loading ..." if is_terminal else "")
    assert screen.getvalue().removeprefix(during) == ("\r\x1b[K" if is_terminal else "")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smi"], "'smi' is none; did you mean 'sim'? there are sim, "),
        (["--steps", "3"], "'--steps' is none; there are sim, "),
        ([], "a preset is missing; there are sim, "),
    ],
)
def test_a_wrong_preset_is_told_from_a_wrong_option(arguments, message):
    """Regression pinned: the help named options of other presets, and commands (`lapa debug`) that do not exist."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["vla", "pretrain", *arguments])
    assert message in str(stop.value.code)


def test_hints_at_an_option_name_the_command_that_has_it(capsys):
    with pytest.raises(SystemExit):
        cli.main(["vla", "pretrain", "debug", "--stpes", "3"])
    said = capsys.readouterr().err
    assert "--steps" in said
    assert "run lapa vla pretrain debug --help" in said
    assert "lapa sim" not in said


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
