"""What is measured of the outputs that a loss compares: numbers that can be worked out by hand."""

import math

import pytest
import torch
from torch import nn

from similitude.nets import output_readings, output_std, prediction_gap

E = torch.eye(4)


def test_rows_that_are_alike_are_all_center():
    read = output_readings(3 * torch.ones(8, 4))
    assert read["center_share"].item() == pytest.approx(1)
    assert read["projection_std"].item() == pytest.approx(0, abs=1e-6)


def test_the_share_of_unrelated_rows_is_one_over_their_number():
    assert output_readings(E)["center_share"].item() == pytest.approx(1 / 4)


def test_rows_that_face_each_other_have_no_center_in_whatever_few_directions():
    """Collapse of dimensions is not collapse to a point: the spread alone does not tell them."""
    facing = torch.cat([E[:1], -E[:1]]).repeat(4, 1)
    read = output_readings(facing)
    assert read["center_share"].item() == pytest.approx(0, abs=1e-12)
    # one of four channels spreads: std sqrt(8 / 7) of it, times sqrt(4) / 4
    assert read["projection_std"].item() == pytest.approx(math.sqrt(8 / 7) / 2)


def test_lengths_do_not_count():
    z = torch.randn(16, 4)
    scaled = z * torch.linspace(0.1, 10, 16)[:, None]
    for name, value in output_readings(z).items():
        torch.testing.assert_close(output_readings(scaled)[name], value)


def test_center_and_residuals_add_up():
    """|o|^2 + E|r|^2 = E|Z|^2 = 1."""
    z = nn.functional.normalize(torch.randn(32, 6, dtype=torch.float64) + 0.5, dim=1)
    residuals = (z - z.mean(dim=0)).square().sum(dim=1).mean()
    share = output_readings(z)["center_share"].double()
    torch.testing.assert_close(share, 1 - residuals, rtol=1e-5, atol=0)


def test_the_spread_is_that_of_output_std():
    z = torch.randn(32, 6)
    assert output_readings(z)["projection_std"] == output_std(z)
    assert set(output_readings(z)) == {"projection_std", "center_share"}


@pytest.mark.parametrize("rows", [32, 8])
def test_the_extra_gradient_is_split_like_the_outputs(rows):
    """Against the definitions, of the rows that have one."""
    torch.manual_seed(0)
    z, extra = torch.randn(32, 6) + 0.3, torch.randn(rows, 6) - 0.2
    read = output_readings(z, extra)
    unit, g = nn.functional.normalize(z, dim=1)[:rows].double(), extra.double()
    o, o_e = unit.mean(dim=0), g.mean(dim=0)
    r, r_e = (unit - o).flatten(), (g - o_e).flatten()
    expected = {
        "extra_center_share": o_e.square().sum() / g.square().sum(dim=1).mean(),
        "extra_center_cosine": torch.cosine_similarity(o_e, o, dim=0),
        "extra_residual_cosine": torch.cosine_similarity(r_e, r, dim=0),
    }
    for name, value in expected.items():
        torch.testing.assert_close(read[name].double(), value, rtol=1e-5, atol=1e-6)


def test_minus_the_outputs_take_away_center_and_residuals():
    unit = nn.functional.normalize(torch.randn(32, 6) + 1, dim=1)
    read = output_readings(unit, -unit)
    assert read["extra_center_cosine"].item() == pytest.approx(-1)
    assert read["extra_residual_cosine"].item() == pytest.approx(-1, abs=1e-5)
    assert read["extra_center_share"].item() == pytest.approx(read["center_share"].item())


def test_an_extra_gradient_of_nothing_has_no_direction():
    read = output_readings(torch.randn(8, 4), torch.zeros(8, 4))
    assert all(read[name] == 0 for name in read if name.startswith("extra"))


def test_a_predictor_that_takes_half_of_the_center_pushes_along_it():
    """Unit rows and their predictions: what is missing in these is what is added to the pull."""
    z = E[:2] + E[2]
    gap = prediction_gap(z, E[:2])
    torch.testing.assert_close(gap, z / math.sqrt(2) - E[:2])


def test_an_identity_leaves_no_gap():
    z = torch.randn(8, 4)
    assert prediction_gap(z, nn.Identity()(z)) is None


def test_readings_carry_no_gradient():
    z = torch.randn(8, 4, requires_grad=True)
    gap = prediction_gap(z, 2 * z)
    assert gap is not None
    assert not any(value.requires_grad for value in output_readings(z, gap).values())
