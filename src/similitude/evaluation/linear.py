"""The linear probe: how well a straight cut through the features separates the classes.

Shapes: N rows, D features, C classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.checks import check_features, check_labeled
from similitude.evaluation.draws import held_out
from similitude.evaluation.logistic import Rows, fit_logistic, logits

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PATIENCE = 2  # weaker penalties tried after the best one


class LinearProbe:
    """Multinomial logistic regression on standardized features.

    The L2 penalty is chosen on a stratified held-out part of the *training* rows: by accuracy, and
    among equals by cross-entropy. Then all training rows are fitted with it. Test rows
    are never seen by :meth:`fit`. The objective is ``mean cross-entropy + penalty / 2 * ||W||^2``
    in nats, W acting on the standardized features.
    """

    def __init__(
        self,
        penalties: Sequence[float] | None = None,
        holdout: float = 0.1,
        seed: int = 0,
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        one_scale: bool = False,
    ) -> None:
        """Set the protocol.

        Args:
            penalties: Candidates; with a single one nothing is held out.
            holdout: Share of each class that is held out to choose, 0..1.
            seed: Of the choice of the held-out rows.
            max_iterations: Upper bound of the L-BFGS steps at each penalty.
            tolerance: A fit stops when its loss is estimated to be this share above the minimum.
            one_scale: Rows are brought to length 1 and divided by one std for all features, as
                suits counts: each divided by its own, the rarest feature would be the loudest.
        """
        self.penalties = tuple(sorted(penalties or PENALTIES, reverse=True))
        if not self.penalties[-1] > 0:
            raise UserError(f"penalties must be above 0, not {self.penalties[-1]}")
        self.holdout = holdout
        self.seed = seed
        self.max_iterations = max_iterations
        self.tolerance = tolerance
        self.one_scale = one_scale

    def fit(self, x: Float[Tensor, "N D"], y: Int[Tensor, " N"]) -> "LinearProbe":
        """Choose the penalty and learn the weights; rows labeled -1 are left out.

        Sets ``classes_`` [C], ``mean_`` and ``std_`` [D], ``weight_`` [D, C] and ``bias_`` [C] (on
        standardized features), ``penalty_``, and ``validation_score_`` (accuracy on the held-out
        part, or None when nothing was chosen).

        Raises:
            UserError: If there are fewer than two classes, no class has two rows, or a feature
                is not finite.
        """
        x, y = check_labeled(x, y)
        self.classes_, target = torch.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UserError(
                f"a linear probe needs at least two classes; all {len(y)} labels are "
                f"{self.classes_.item()}"
            )
        x = F.normalize(x, dim=1) if self.one_scale else x
        self.penalty_, self.validation_score_ = self.penalties[0], None
        start = None
        if len(self.penalties) > 1:
            start = self._choose(x, target)
        self.mean_, self.std_ = standardization(x, self.one_scale)
        coefficients = self._fit((x - self.mean_) / self.std_, target, self.penalty_, start)
        self.weight_, self.bias_ = coefficients[0, 0, :-1], coefficients[0, 0, -1]
        return self

    def predict(self, x: Float[Tensor, "N D"]) -> Int[Tensor, " N"]:
        """The most probable class of each row."""
        return self.classes_[self.decision(x).argmax(1)]

    def decision(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Logits in nats; columns as ``classes_``."""
        x = check_features(x).to(self.weight_)
        if x.shape[1] != len(self.weight_):
            raise UserError(
                f"the rows to classify have {x.shape[1]} features, the fitted ones "
                f"{len(self.weight_)}: use features of the same backbone"
            )
        rows = (F.normalize(x, dim=1) if self.one_scale else x).split(8192)
        return torch.cat([((r - self.mean_) / self.std_) @ self.weight_ + self.bias_ for r in rows])

    def score(self, x: Float[Tensor, "N D"], y: Int[Tensor, " N"]) -> float:
        """Share of the labeled rows whose class is found, 0..1."""
        x, y = check_labeled(x, y)
        return (self.predict(x) == y).double().mean().item()

    def _fit(self, z: Tensor, target: Tensor, penalty: float, start: Tensor | None) -> Tensor:
        weight = z.new_full((1, 1, len(z)), 1 / len(z))
        return fit_logistic(
            Rows(z[None], target[None], weight),
            len(self.classes_),
            penalty,
            start=start,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )

    def _choose(self, x: Tensor, target: Tensor) -> Tensor:
        """Go from strong to weak penalties, each from the previous solution."""
        out = held_out(target.cpu(), self.holdout, self.seed).to(x.device)
        z, seen, unseen = x[~out], target[~out], target[out]
        mean, std = standardization(z, self.one_scale)
        z.sub_(mean).div_(std)
        other = (x[out] - mean) / std
        best, chosen, since = (-1.0, 0.0), None, 0
        coefficients = None
        for penalty in self.penalties:
            coefficients = self._fit(z, seen, penalty, coefficients)
            score = logits(other[None], coefficients)[0, 0]
            right = (score.argmax(1) == unseen).double().mean().item()
            quality = (right, -F.cross_entropy(score, unseen).item())
            since += 1
            if quality > best:
                best, chosen, since = quality, coefficients, 0
                self.penalty_, self.validation_score_ = penalty, right
            elif since >= PATIENCE:
                break
        assert chosen is not None
        return chosen


def standardization(
    x: Float[Tensor, "N D"], one_scale: bool = False
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and std (over N) of each feature; std 1 for a constant feature.

    With ``one_scale`` the std of all of them is the root of their mean variance.

    The sums run over differences from a first mean, so a large common offset costs no digits.
    """
    shift = x.mean(0)
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    square = torch.zeros_like(total)
    for part in x.split(8192):
        difference = part - shift
        total += difference.sum(0)
        square += difference.square_().sum(0)
    correction = total / len(x)
    variance = (square / len(x) - correction**2).clamp_min(0)
    std = (variance.mean().expand_as(variance) if one_scale else variance).sqrt()
    mean = shift + correction
    constant = std <= 10 * torch.finfo(x.dtype).eps * mean.abs()
    return mean.to(x.dtype), std.masked_fill(constant, 1.0).to(x.dtype)
