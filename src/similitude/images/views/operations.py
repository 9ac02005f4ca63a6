"""What may happen to a view after its colors were jittered: a class for each operation, in order.

A class, and a probability of its name in ``ImageViewConfig``, add one. N samples of C channels in a
batch, of which the operation happens to B.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from similitude.devices import moved
from similitude.images.views.color import solarize, to_grey
from similitude.images.views.config import ImageViewConfig
from similitude.images.views.resampling import gaussian_blur_


class Operation(ABC):
    """One operation on some samples of a batch.

    Attributes:
        name: Of its probability in the config, and of its draw.
        ranges: What else is drawn for each sample: its name -> the config's field with the range.
    """

    name: ClassVar[str]
    ranges: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def apply_(
        self,
        images: Float[Tensor, "N C s s"],
        which: Int[Tensor, " B"],
        drawn: Mapping[str, Float[Tensor, " B"]],
        config: ImageViewConfig,
    ) -> None:
        """Change some images in place.

        Args:
            images: In [0, 1].
            which: Numbers of those it happens to, on the CPU.
            drawn: The values of ``ranges`` for these, on the CPU.
            config: Of the view.
        """


class Grey(Operation):
    """Gray, in three equal channels; of red, green and blue."""

    name = "grey"

    def apply_(
        self,
        images: Float[Tensor, "N C s s"],
        which: Int[Tensor, " B"],
        drawn: Mapping[str, Tensor],
        config: ImageViewConfig,
    ) -> None:
        """See :func:`color.to_grey`."""
        where = moved(which, images.device)
        grey = to_grey(images.index_select(0, where))
        images.index_copy_(0, where, grey[:, None].expand(-1, 3, -1, -1))


class Blur(Operation):
    """A Gaussian blur with a standard deviation of its own for each sample."""

    name = "blur"
    ranges: ClassVar = {"blur sigma": "blur_sigma"}

    def apply_(
        self,
        images: Float[Tensor, "N C s s"],
        which: Int[Tensor, " B"],
        drawn: Mapping[str, Tensor],
        config: ImageViewConfig,
    ) -> None:
        """See :func:`resampling.gaussian_blur_`."""
        radius = config.blur_radius(images.shape[-1])
        gaussian_blur_(images, which, drawn["blur sigma"], radius=radius)


class Solarize(Operation):
    """The inverse of all pixels from a threshold on."""

    name = "solarize"

    def apply_(
        self,
        images: Float[Tensor, "N C s s"],
        which: Int[Tensor, " B"],
        drawn: Mapping[str, Tensor],
        config: ImageViewConfig,
    ) -> None:
        """See :func:`color.solarize`."""
        where = moved(which, images.device)
        inverted = solarize(images.index_select(0, where), config.solarize_threshold)
        images.index_copy_(0, where, inverted)


OPERATIONS: tuple[Operation, ...] = (Grey(), Blur(), Solarize())
