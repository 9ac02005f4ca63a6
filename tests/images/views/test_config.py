"""Wrong choices are refused with a sentence; right ones survive the way through YAML."""

import pytest
import yaml
from pydantic import ValidationError

from similitude.errors import UserError
from similitude.images.views.config import ImageFacts, ImageViewConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 1.5, "less than or equal to 1"),
        ("blur", -0.1, "greater than or equal to 0"),
        ("crop_scale", (0.5, 0.2), "smaller number first"),
        ("crop_scale", (0.2, 1.5), "cannot be larger than its image"),
        ("crop_scale", (0.0, 1.0), "greater than 0"),
        ("crop_ratio", (2.0, 1.0), "smaller number first"),
        ("blur_sigma", (0.0, 2.0), "greater than 0"),
        ("jitter", (0.4, 0.4, 0.4, 0.6), "less than or equal to 0.5"),
        ("jitter", (0.4, 0.4, 0.4), "Field required"),
        ("size", 0, "greater than or equal to 1"),
        ("interpolation", "nearest", "'bilinear' or 'bicubic'"),
        ("gray", 0.2, "Extra inputs are not permitted"),
    ],
)
def test_wrong_choices_are_refused_by_name(field, value, message):
    with pytest.raises(ValidationError) as caught:
        ImageViewConfig(**{field: value})
    assert field in str(caught.value)
    assert message in str(caught.value)


def test_configs_are_frozen_and_survive_yaml():
    config = ImageViewConfig(crop_scale=(0.08, 1.0), blur_kernel=0.1, interpolation="bicubic")
    with pytest.raises(ValidationError):
        config.flip = 0.0  # type: ignore[misc]
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert ImageViewConfig.model_validate(yaml.safe_load(text)) == config


@pytest.mark.parametrize(
    ("share", "size", "radius"),
    [(0.1, 224, 11), (0.1, 32, 1), (0.1, 96, 4), (None, 224, 8), (None, 32, 8), (None, 5, 4)],
)
def test_blur_radius_is_that_of_the_papers(share, size, radius):
    """SimCLR: 2 int((size // 10) / 2) + 1 taps; without a share, four standard deviations."""
    assert ImageViewConfig(blur_kernel=share).blur_radius(size) == radius


def test_image_facts_refuses_what_cannot_be():
    with pytest.raises(UserError, match="size is 0"):
        ImageFacts(0, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    with pytest.raises(UserError, match="above 0"):
        ImageFacts(32, (0.5, 0.5, 0.5), (0.2, 0.0, 0.2))
