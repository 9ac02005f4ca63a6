"""Views of several sensors: drawn alike where they are aligned, on their own where they are not."""

import pytest
import torch

from similitude.images.canvases import Canvases
from similitude.images.config import ImageData
from similitude.images.views.config import ImageFacts
from similitude.multimodal.inputs import SensorRows
from similitude.multimodal.views import SensorFacts, SensorViewConfig
from similitude.sample import MultiView

N, SIDE = 6, 16


@pytest.mark.parametrize("aligned", [True, False])
def test_sensors_of_different_files_see_one_place_where_they_are_aligned(aligned):
    """As a photo and its depth do: what stands at one place in both stays at one place."""
    photo = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8)
    depth = 255 - photo
    there = torch.ones(N, dtype=torch.bool)
    rows = SensorRows(
        {"photo": Canvases(photo), "depth": Canvases(depth)}, {"photo": there, "depth": there}
    )
    crop = ImageData(image_size=8).training_view([]).changed(crop_scale=(0.2, 0.6))
    config = SensorViewConfig(aligned=aligned, of={"photo": crop, "depth": crop})
    facts = SensorFacts(dict.fromkeys(("photo", "depth"), ImageFacts(8, (0.5,) * 3, (0.5,) * 3)))
    views = MultiView(config.on(facts), config.on(facts))
    for view in views(rows, torch.arange(N), seed=0, epoch=0):
        gap = (view.of["photo"] + view.of["depth"]).abs().amax((1, 2, 3))  # black is -1, white 1
        assert (gap < 0.02).all() if aligned else (gap > 0.1).all()
