# SPDX-License-Identifier: Apache-2.0
"""`lapa laq import-release`, with a file in the format of `laq_openx.pt` at toy width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lapa_core.errors import CheckpointError, ContractError
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.import_release import ImportReleaseConfig, import_release
from lapa_core.laq.release import ReleaseLaq
from tests.toy import TOY_PATCH

RELEASE = replace(TOY_PATCH, code_dim=32, compat="release")


@pytest.fixture
def model() -> ReleaseLaq:
    torch.manual_seed(0)
    return ReleaseLaq(RELEASE).eval()


def config(tmp_path, **changes) -> ImportReleaseConfig:
    base = ImportReleaseConfig(
        file=tmp_path / "laq_openx.pt", out=tmp_path / "laq_openx", model=RELEASE
    )
    return replace(base, **changes)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_imported_model_is_the_released_one(tmp_path, model, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "laq_openx.pt")
    loaded, facts = load_laq(import_release(config(tmp_path)))
    assert facts["gap_s"] == 0.6
    assert facts["imported"]["file"] == "laq_openx.pt"
    assert len(facts["imported"]["sha256"]) == 64
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)
    ours, theirs = loaded.encode(*frames), model.encode(*frames)
    assert np.array_equal(ours.codes_BK, theirs.codes_BK)
    assert np.array_equal(
        loaded.decode(frames[0], ours.codes_BK), model.decode(frames[0], ours.codes_BK)
    )


def test_what_is_wrong_with_a_file_is_named(tmp_path, model):
    state = model.state_dict()
    gamma = state.pop("enc_spatial_transformer.norm_out.gamma")
    state["vq.codebook"] = torch.zeros(8, 32)
    state["vq.codebooks"] = torch.zeros(4, 32)
    torch.save(state, tmp_path / "laq_openx.pt")
    with pytest.raises(CheckpointError) as refused:
        import_release(config(tmp_path))
    for fault in (
        "missing enc_spatial_transformer.norm_out.gamma",
        "surplus vq.codebook",
        "vq.codebooks has shape (4, 32), not (8, 32)",
    ):
        assert fault in str(refused.value)
    assert not (tmp_path / "laq_openx").exists()

    whole = {**model.state_dict(), "enc_spatial_transformer.norm_out.gamma": gamma * torch.nan}
    torch.save(whole, tmp_path / "laq_openx.pt")
    with pytest.raises(CheckpointError, match=r"not finite in enc_spatial_transformer\.norm_out"):
        import_release(config(tmp_path))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "laq_openx.pt"
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_release(config(tmp_path))
    path.write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_release(config(tmp_path))
    torch.save([torch.zeros(3)], path)
    with pytest.raises(CheckpointError, match="no state dict"):
        import_release(config(tmp_path))
    torch.save({"optimizer": {"lr": 1.0}}, path)
    with pytest.raises(CheckpointError, match="no state dict"):
        import_release(config(tmp_path))


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ContractError, match="gap_s is 0"):
        config(tmp_path, gap_s=0.0)
    with pytest.raises(ContractError, match="only fit 'release'"):
        config(tmp_path, model=TOY_PATCH)
