"""What the options alone show to be wrong is told before any data is opened."""

import pytest

import similitude as sim
from builders import random_images
from similitude.errors import UserError
from similitude.images.samples import MODALITY
from similitude.methods import BYOLConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": True}, "--shard parts a network among processes, and there is one"),
        ({"overrides": "method.temprature=0.2"}, "did you mean temperature"),
        ({"overrides": "method.temperature=-1"}, "temperature"),
        ({"overrides": "method.ema_decay=0.9", "method": "simclr"}, "no field 'ema_decay'"),
        ({"overrides": "temperature=0.2"}, "did you mean method.temperature"),
        ({"overrides": "optimizer.lr=0.2"}, "no field 'lr' in optimizer"),
        ({"backbone": "resnet81"}, "unknown backbone 'resnet81'"),
        ({"recipe": "cifar10.simclr", "method": "byol"}, "contradict each other"),
        ({"recipe": "cifar10.simclr", "overrides": "method.x=1"}, "no field 'x' in method"),
        ({"init": "timm:resnet18", "overrides": "backbone.name=x"}, "--init decides backbone.name"),
    ],
)
def test_it_is_refused_before_data_is_opened(options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(type(MODALITY), "open_training", None)
    with pytest.raises(UserError, match=message):
        sim.pretrain(random_images(8), out=tmp_path / "r", **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": BYOLConfig(ema_decay=0.9), "overrides": "method.ema_decay=0.8"},
        {"method": "byol", "overrides": ["method.ema_decay=0.9", "method.view1.blur=0.5"]},
        {"backbone": "resnet18", "overrides": ["backbone.base_width=16", "image_size=32"]},
        {"recipe": "cifar10.simclr", "overrides": ["init=null", "optimizer.base_lr=0.1"]},
    ],
)
def test_what_may_be_right_gets_there(options, tmp_path, monkeypatch):
    class OpenedError(Exception):
        pass

    def opened(*_, **__):
        raise OpenedError

    monkeypatch.setattr(type(MODALITY), "open_training", opened)
    with pytest.raises(OpenedError):
        sim.pretrain(random_images(8), out=tmp_path / "r", **options)
