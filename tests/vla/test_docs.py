# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/vla.md is understood by the parser that would run it; every preset says what it is for."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest

from lapa_core import cli, presets
from lapa_core.train import device
from tests.torchrun import REPOSITORY

PAGE = (REPOSITORY / "docs/vla.md").read_text()


def commands() -> list[str]:
    """Return the words after `lapa` of all commands, those in code blocks and those in sentences."""
    lines = [line.strip().removeprefix("$ ") for line in PAGE.splitlines()]
    found = re.findall(r"`lapa ([^`]*--[^`]*)`", PAGE)
    found += [line.removeprefix("lapa ") for line in lines if line.startswith("lapa ")]
    found += [line.split("-m lapa_core ")[1] for line in lines if line.startswith("torchrun ")]
    return sorted({command for command in found if not command.endswith("--help")})


@pytest.mark.slow  # importing every verb's module takes longer than parsing
@pytest.mark.parametrize("command", commands())
def test_the_command_parses(monkeypatch, command):
    words = shlex.split(command)
    verb = cli._find(words)
    module = importlib.import_module(verb.config.split(":")[0])
    parsed = []
    monkeypatch.setattr(module, "main", parsed.append)
    monkeypatch.setattr(device, "check_device", lambda name: None)
    cli.run(verb, words[len(verb.words.split()) :])
    assert len(parsed) == 1


def test_there_are_commands():
    assert len(commands()) > 10


def test_every_preset_has_its_line():
    assert presets.VLA_PRETRAIN_NOTES.keys() == presets.VLA_PRETRAIN.keys()
    assert presets.VLA_FINETUNE_NOTES.keys() == presets.VLA_FINETUNE.keys()
