"""Speech SimCLR: contrast and reconstruction together (Jiang et al. 2021, arXiv:2010.13991).

    v1, v2 = t(x), t(x)                  one clip twice: changed as a wave form, frames hidden
    f = frames of the backbone           a transformer over pairs of frames
    z = projector(mean of f over time)
    contrast = NT-Xent(z1, z2)                                              eq. 1
    reconstruction = |decoder(f) - target| on the hidden frames             eq. 2 (MPC, L1)
    loss = w reconstruction + (1 - w) contrast, w = 1 / 2                   eq. 3

``reconstruction_weight`` 0 or 1 is either alone. Differs from the reference code (athena, branch
simclr): both views are changed (the code: one, from files made before); targets are the view's own
frames, in the data set's normalization; hidden frames are 0, its mean; the error
is a mean over the bands (the code: a sum, which would drown the contrast); no frame is padding.
"""

from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from similitude.audio.networks import FrameTransformer, pairs_of_frames
from similitude.audio.views import AudioViewConfig
from similitude.distributed import gather, mean_over_processes, own_share, world_size
from similitude.errors import UserError
from similitude.losses import nt_xent, repulsion
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import output_readings
from similitude.nets.backbone import Backbone
from similitude.nets.views import joined
from similitude.sample import AnyView, MultiView


class SpeechSimCLRConfig(MethodConfig):
    """Defaults are the paper's (Sec. 3.2)."""

    name: Literal["speech_simclr"] = "speech_simclr"
    title: ClassVar[str] = "Speech SimCLR"
    view: AnyView = AudioViewConfig(
        speed=3.0,
        reverb=0.5,
        noise=0.5,
        gain_db=6.0,
        mix=0.0,
        resize=False,
        standardize=False,
        hide_frames=0.2,
    )
    hidden_dim: Width = 768
    projection_dim: Width = 256
    temperature: float = Field(default=0.1, gt=0)
    reconstruction_weight: float = Field(default=0.5, ge=0, le=1)


class SpeechSimCLR(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: SpeechSimCLRConfig) -> None:
        super().__init__()
        if not isinstance(backbone, FrameTransformer):
            raise UserError(
                "speech_simclr predicts frames: it takes a folder of sounds and --backbone "
                "transformer"
            )
        self.config = config
        self.backbone: FrameTransformer = backbone
        width = backbone.width
        self.projector = nn.Sequential(
            nn.Linear(width, config.hidden_dim),
            nn.ReLU(),
            nn.Linear(config.hidden_dim, config.projection_dim),
        )
        self.decoder = nn.Linear(width, backbone.inner.embedding.in_features)

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        views = joined(batch.views)
        shown, target = views[:, :1], views[:, 1:]
        frames = self.backbone.inner(shown)
        h = frames.mean(dim=1)
        z = self.projector(h)
        z1, z2 = z.chunk(2)
        contrast = nt_xent(
            gather(z1), gather(z2), temperature=self.config.temperature, share=own_share()
        )
        shown, target = pairs_of_frames(shown), pairs_of_frames(target)
        hidden = (shown != target).any(dim=2)
        missing = error_where(hidden, self.decoder(frames), target)
        weight = self.config.reconstruction_weight
        loss = weight * missing + (1 - weight) * contrast
        extra = repulsion(z1, z, temperature=self.config.temperature, left_out=(0, len(z1)))
        metrics = output_readings(z1, extra)
        metrics |= {"contrast": contrast.detach(), "reconstruction": missing.detach()}
        features = self.backbone.pooled(frames.detach().chunk(2)[0])
        return StepOutput(loss, features, metrics)


def error_where(
    hidden: Bool[Tensor, "N t"], found: Float[Tensor, "N t D"], target: Float[Tensor, "N t D"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of the frames that were hidden; 0 where none was.

    Over processes the mean of their results is that over the hidden frames of all.
    """
    error = (found - target).abs().mean(dim=2) * hidden
    return error.sum() / mean_over_processes(hidden.sum().to(error)).clamp_min(1 / world_size())
