"""Mel spectrograms and MFCC are librosa's, whose values were stored with version 0.11."""

from pathlib import Path

import numpy as np
import pytest
import torch

from similitude.audio.spectrograms import EPSILON, Mel, log_mel, mel_filters, mfcc

STORED = np.load(Path(__file__).parent / "vectors" / "librosa.npz")
KINDS = {
    "a": Mel(16_000, 1024, 160, 64, 60.0, 7_800.0),
    "b": Mel(16_000, 1024, 1000, 32, 60.0, 7_800.0),
    "c": Mel(16_000, 400, 160, 40, 0.0, 8_000.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_filters_spectrograms_and_mfcc_are_librosas(kind):
    mel = KINDS[kind]
    filters = torch.from_numpy(STORED[f"fb_{kind}"])
    assert torch.allclose(mel_filters(mel)[::9], filters, rtol=1e-5, atol=1e-8)
    waves = torch.from_numpy(STORED["y"]).float()[None] / 32767
    found = log_mel(waves, mel)[0, 0]
    stored = torch.from_numpy(STORED[f"mel_{kind}"])
    powers = found.exp()[:, ::7]
    assert (powers - stored).abs().max() < 1e-4 * stored.max()
    assert torch.allclose(found[:, ::7], (stored + EPSILON).log(), atol=0.05)
    coefficients = torch.from_numpy(STORED[f"mfcc_{kind}"])
    assert torch.allclose(mfcc(found[None], 20)[0][:, ::7], coefficients, atol=0.05)


def test_silence_has_a_finite_logarithm():
    found = log_mel(torch.zeros(2, 4_000), KINDS["a"])
    assert torch.equal(found, torch.full_like(found, float(np.log(EPSILON))))
    assert found.shape == (2, 1, 64, KINDS["a"].frames(4_000))
