"""The contract of rows and views, without images: kinds, changes, partners, equal views."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
import yaml
from pydantic import ValidationError

from similitude.errors import UserError
from similitude.method import MethodConfig
from similitude.methods import BYOLConfig, CPCV1Config, SimCLRConfig
from similitude.sample import AnyView, Config, Draw, MultiView, View, ViewConfig


class Numbers:
    """Rows of plain numbers, [N]."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def to(self, device):
        return Numbers(self.values.to(device))


@dataclass(frozen=True)
class Shifted(View[Numbers]):
    """Adds something of its own, seed, epoch, index and number of the view."""

    by: float = 0.0

    def draw(self, draw: Draw, rows: Numbers):
        SEEN.append(list(draw.views))
        return [self.by + draw.seed + draw.epoch + draw.index + view for view in draw.views]

    def apply(self, rows: Numbers, choices):
        return [rows.values + choice for choice in choices]


SEEN: list[list[int]] = []


def test_equal_views_are_drawn_together_and_come_back_in_their_order():
    SEEN.clear()
    views = MultiView(Shifted(), Shifted(100.0), Shifted())

    made = views(Numbers(torch.zeros(2)), torch.tensor([10, 20]), seed=1, epoch=2)

    assert SEEN == [[0, 2], [1]]
    assert [view.tolist() for view in made] == [[13.0, 23.0], [114.0, 124.0], [15.0, 25.0]]


def test_the_last_view_is_of_the_partner_where_there_is_one():
    views = MultiView(Shifted(), partner=Shifted())
    rows, partners = Numbers(torch.zeros(1)), Numbers(torch.full((1,), 1000.0))

    _, alone = views(rows, torch.zeros(1).long(), seed=0, epoch=0)
    own, beside = views(rows, torch.zeros(1).long(), seed=0, epoch=0, partners=partners)

    assert (own.item(), alone.item(), beside.item()) == (0.0, 1.0, 1001.0)


def test_a_position_is_wanted_for_every_sample():
    with pytest.raises(UserError, match=r"index has shape \[1\] for 2 samples"):
        MultiView(Shifted())(Numbers(torch.zeros(2)), torch.zeros(1).long(), seed=0, epoch=0)


def test_a_recipe_from_before_there_were_kinds_is_of_images():
    config = BYOLConfig.model_validate({"view1": {"blur": 0.3}})

    assert config.view1.kind == "image"
    assert config.view1.blur == 0.3
    again = BYOLConfig.model_validate(
        yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    )
    assert again == config
    assert CPCV1Config().view.kind == "patches"


def test_another_kind_of_view_keeps_its_own_fields():
    config = SimCLRConfig.model_validate({"view": {"kind": "patches", "patch_size": 8}})

    assert config.view.patch_size == 8
    assert config.model_dump()["view"]["patch_size"] == 8


@pytest.mark.parametrize(
    ("view", "words"),
    [({"kind": "smell"}, "unknown kind of view 'smell'"), ({"patch_size": 8}, "patch_size")],
)
def test_a_kind_that_is_not_known_and_fields_of_another_are_refused(view, words):
    with pytest.raises(ValidationError, match=words):
        SimCLRConfig.model_validate({"view": view})


class Small(Config):
    width: int = 3


def test_a_change_is_checked_as_a_file_is():
    assert Small().changed(width=5) == Small(width=5)
    with pytest.raises(ValidationError, match="heigth"):
        Small().changed(heigth=5)
    with pytest.raises(ValidationError, match="width"):
        Small().changed(width="wide")


class OwnConfig(MethodConfig):
    name: Literal["own"] = "own"
    view: AnyView
    depth: int = 1


def test_a_users_own_config_keeps_the_name_by_which_recipes_find_it():
    view = SimCLRConfig().view
    config = OwnConfig(view=view).model_copy(update={"name": "module:Own"})

    assert config.changed(depth=2).name == "module:Own"
    assert isinstance(config.changed(depth=2).view, ViewConfig)
    with pytest.raises(ValidationError, match="depth"):
        config.changed(depth="deep")
