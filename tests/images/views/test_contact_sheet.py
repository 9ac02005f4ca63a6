"""The picture shows the right samples at the right places, as they went into the network."""

import numpy as np
import pytest
import torch

from similitude.errors import UserError
from similitude.images.canvases import Canvases
from similitude.images.views.config import ImageFacts, ImageViewConfig
from similitude.images.views.contact_sheet import contact_sheet
from similitude.images.views.image import ImageView
from similitude.sample import MultiView, View

SPEC = ImageFacts(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
IDENTITY = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "flip": 0.0,
    "jitter_probability": 0.0,
    "grey": 0.0,
    "blur": 0.0,
}


def cells(sheet, rows, columns, groups, cell=96):
    """The cells of a sheet, from its margins and gaps: [rows, 1 + groups * columns]."""
    pixels = np.asarray(sheet)
    lefts = [20]
    for group in range(groups):
        first = 20 + cell + 20 + group * (columns * (cell + 4) - 4 + 20)
        lefts += [first + column * (cell + 4) for column in range(columns)]
    tops = [46 + row * (cell + 4) for row in range(rows)]
    return [[pixels[t : t + cell, x : x + cell] for x in lefts] for t in tops]


def test_unchanged_views_repeat_the_original_pixel_by_pixel():
    canvases = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    views = MultiView(
        ImageView(ImageViewConfig(**IDENTITY), SPEC),
        ImageView(ImageViewConfig(**IDENTITY, normalize=False), SPEC),
    )
    sheet = contact_sheet(Canvases(canvases), views, SPEC, rows=2, columns_per_view=3)
    assert sheet.mode == "RGB"
    for row, line in enumerate(cells(sheet, rows=2, columns=3, groups=2)):
        expected = np.repeat(np.repeat(canvases[row].permute(1, 2, 0).numpy(), 3, 0), 3, 1)
        assert len(line) == 7
        for cell in line:
            assert np.array_equal(cell, expected)


def test_columns_are_epochs_of_the_runs_own_views():
    canvases = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    views = MultiView(ImageView(ImageViewConfig(normalize=False), SPEC))
    sheet = contact_sheet(Canvases(canvases), views, SPEC, columns_per_view=2, seed=5)
    (first, *_), *_ = views(Canvases(canvases), torch.arange(2), seed=5, epoch=1)
    shown = cells(sheet, rows=2, columns=2, groups=1)[0][2][::3, ::3]
    assert np.abs(shown / 255 - first.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_originals_keep_their_shape():
    canvases = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    views = MultiView(ImageView(ImageViewConfig(**IDENTITY), SPEC))
    sheet = contact_sheet(Canvases(canvases, torch.tensor([2.0, 0.5])), views, SPEC)
    wide, tall = (line[0][..., 0] == 0 for line in cells(sheet, 2, 4, 1))
    assert wide.any(0).sum() == 96
    assert wide.any(1).sum() == 48
    assert tall.any(0).sum() == 48
    assert tall.any(1).sum() == 96


def test_captions_name_every_view():
    canvases = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    views = MultiView(*[ImageView(ImageViewConfig(size=size), SPEC) for size in (32, 24, 200)])
    sheet = np.asarray(contact_sheet(Canvases(canvases), views, SPEC, columns_per_view=2))
    caption = (sheet[20:46] < 128).all(-1).any(0)
    for left in (20, 136, 352, 568):
        assert caption[left : left + 40].any()
    assert not caption[:18].any()


def test_nothing_to_show_is_told():
    views = MultiView(ImageView(ImageViewConfig(), SPEC))
    with pytest.raises(UserError, match="0 images"):
        contact_sheet(Canvases(torch.zeros(0, 3, 32, 32, dtype=torch.uint8)), views, SPEC)


class MeanColor(View):
    """A view of a user's own, all in the mean color."""

    def draw(self, draw, rows):
        return len(draw.views)

    def apply(self, rows, choices):
        return [torch.zeros(len(rows), 3, 12, 12)] * choices


def test_a_view_of_a_users_own_is_shown_as_if_mean_and_std_were_taken_off():
    canvases = Canvases(torch.zeros(2, 3, 12, 12, dtype=torch.uint8), torch.ones(2))
    facts = ImageFacts(size=12, mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5))
    sheet = contact_sheet(canvases, MultiView(MeanColor()), facts, columns_per_view=1, seed=0)
    assert (51, 102, 153) in {color for _, color in sheet.getcolors(1 << 20)}
