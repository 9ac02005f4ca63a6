"""CPC: contrastive predictive coding (van den Oord et al., 2018, arXiv:1807.03748), on sound.

    z_t = encoder(x)                     strided convolutions: a latent every 10 ms     Sec. 3.1
    c_t = GRU(z_1 .. z_t)
    p = W_k c_t predicts z_{t+k}, for k = 1 .. K                                        eq. 3
    loss = -log( exp(p . z_{t+k}) / sum over the batch of exp(p . z'_{t+k}) )           eq. 4
           mean over t and k

What is kept is the encoder with the GRU; its feature of a clip is the mean of c over time. A latent
is told from those of the other clips of the batch at the same time. Over processes that is the
whole batch.

The authors published no code. Differs from the paper: LayerNorm over the channels after each
convolution (Riviere et al. 2020; the paper has no norm); batches larger than its 8 for each GPU.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.audio.networks import Predictive
from similitude.audio.views import AudioView, AudioViewConfig
from similitude.distributed import gather, rank
from similitude.errors import UserError
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput
from similitude.nets import output_std
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class CPCAudioConfig(MethodConfig):
    """Defaults are the paper's for LibriSpeech (Sec. 3.1)."""

    name: Literal["cpc_audio"] = "cpc_audio"
    title: ClassVar[str] = "CPC on sound"
    view: AnyView = AudioViewConfig(seconds=1.28, mix=0, resize=False, standardize=False)
    prediction_steps: int = Field(default=12, ge=1)  # K


class CPCAudio(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: CPCAudioConfig) -> None:
        super().__init__()
        if not isinstance(backbone, Predictive):
            raise UserError(
                "cpc_audio predicts latents of wave forms: it takes a folder of sounds and "
                "--backbone cpc"
            )
        self.config = config
        self.backbone: Predictive = backbone
        context, latent = backbone.num_features, backbone.latent_dim
        steps = range(config.prediction_steps)
        self.predictor = nn.ModuleList(nn.Linear(context, latent, bias=False) for _ in steps)

    def views(self, facts: Any) -> MultiView:
        view, least = self.config.view.on(facts), self.backbone.inner.samples_for(latents=2)
        if isinstance(view, AudioView) and view.samples < least:
            rate = view.facts.mel.rate
            seconds = math.ceil(1e4 * least / rate) / 1e4
            raise UserError(
                f"cpc_audio predicts a latent from the one before, and a cut of {view.samples} "
                f"samples has no two: set method.view.seconds to {seconds:g} at least, {least} "
                f"samples at {rate:,} a second"
            )
        return MultiView(view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        both = self.backbone.inner(batch.views[0])
        latents, contexts = both.tensor_split([self.backbone.latent_dim], dim=2)
        steps = min(len(self.predictor), latents.shape[1] - 1)
        if steps < 1:
            raise UserError("the cuts are too short to predict anything: set method.view.seconds")
        everyone = gather(latents)
        losses = [
            prediction_loss(predict(contexts[:, :-k]), everyone[:, k:], first=rank() * len(latents))
            for k, predict in enumerate(list(self.predictor)[:steps], start=1)
        ]
        h = contexts.mean(dim=1)
        metrics = {"projection_std": output_std(latents.flatten(0, 1))}
        return StepOutput(torch.stack(losses).mean(), h.detach(), metrics)

    def chance_loss(self, batch_size: int) -> float:
        return math.log(batch_size)


def prediction_loss(
    predicted: Float[Tensor, "N T D"], latents: Float[Tensor, "M T D"], *, first: int = 0
) -> Float[Tensor, ""]:
    """Cross-entropy of finding one's own latent among those of all clips at the same time.

    Args:
        predicted: p of each clip and time.
        latents: z of all clips, of which ``first`` to ``first + N - 1`` are these.
        first: number of the first clip.

    Returns:
        In nats, 0 or more; log M where all products are equal.
    """
    products = torch.einsum("ntd,mtd->ntm", predicted, latents)
    own = torch.arange(first, first + len(predicted), device=predicted.device)
    target = own[:, None].expand(products.shape[:2])
    return F.cross_entropy(products.flatten(0, 1), target.flatten())
