"""Every method on every kind of data: it takes steps there, or says in a sentence why it cannot."""

import math
from pathlib import Path

import pytest

import similitude as sim
from kinds import OF_FILMS, SETTINGS, write_kinds
from similitude.errors import UserError
from similitude.methods import CONFIGS, METHODS
from similitude.runs.metrics import read_metrics

# What a loss needs and a kind does not have. Whatever is not here trains.
REFUSED = (
    {
        (kind, name): "needs views that such data does not have"
        for kind in SETTINGS
        for name in ("cpc_v1", "cpc_v2")  # patches
    }
    | {
        (kind, name): f"{name} compares sensors: give a"
        for kind in ("audio", "graph", "text")
        for name in ("clip", "cmc", "elo")
    }
    | {
        (kind, name): "takes a folder of sounds and --backbone"
        for kind in ("graph", "text", "sensors", "video")
        for name in ("speech_simclr", "cpc_audio")
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_kinds(tmp_path_factory.mktemp("kinds"))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_runs")
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_steps_or_says_why_not(data, tmp_path, name, kind):
    compares = kind == "video" and CONFIGS[name].compares_sensors

    def run():
        return sim.pretrain(
            data[kind],
            method=name,
            out=tmp_path / "r",
            epochs=2,
            overrides=OF_FILMS if compares else SETTINGS[kind],
            report=False,
        )

    if (kind, name) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[kind, name]):
            run()
        assert not (tmp_path / "r").exists()
        return
    losses = [r["loss"] for r in read_metrics(run().path / "metrics.csv") if "loss" in r]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
