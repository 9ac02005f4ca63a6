"""What determines a classifier besides images and labels, and how it is chosen."""

from typing import Any, Literal

from pydantic import Field

from similitude.errors import UserError
from similitude.modalities import chooser
from similitude.recipes import OptimizerConfig, Recipe
from similitude.sample import AnyView, Config, ViewConfig

MANY_LABELS = 10_000  # from here, and with large images, as published; ImageNet's 1 % are 12,811
FEWEST_STEPS = 600  # of a fine-tuning on few labels, whatever the number of epochs
SGD_LR, SCRATCH_LR, ADAMW_LR = 0.1, 0.2, 2e-3  # per 256 images


class TransferRecipe(Config):
    """What both stages have."""

    stage: str  # stands first: by it a folder is known as that of a classifier
    source: str  # folder of the run that was fine-tuned, or of the teacher
    data: str  # the images, in words
    class_names: tuple[str, ...]  # in the order of the logits
    from_layer: int = Field(ge=0)  # layers of the projector that are kept; 0: the backbone alone
    view: AnyView  # of training
    optimizer: OptimizerConfig
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seed: int = Field(default=0, ge=0)
    reasons: dict[str, str] = Field(default_factory=dict)  # why each automatic choice was made
    network: Recipe  # the pretraining's: builds backbone and projector, prepares images

    @property
    def training(self) -> Recipe:
        """The recipe for the trainer: the network's, with this stage's optimizer and length."""
        ours = ("optimizer", "epochs", "batch_size", "seed")
        update = {name: getattr(self, name) for name in ours}
        # these are short, and train the whole network
        return self.network.changed(**(update | {"compile": False, "init": None}))


class FinetuneRecipe(TransferRecipe):
    """Fine-tuning of backbone and head on labels (SimCLR v2, Sec. 2)."""

    stage: Literal["finetune"] = "finetune"
    from_scratch: bool = False  # random weights instead of the run's: the supervised baseline
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    # Of the backbone's depth, from the input on, that stays as it is.
    frozen: float = Field(default=0.0, ge=0, le=1)
    # What BatchNorm in the backbone computes with: each batch's statistics, or those it came with.
    batchnorm: Literal["batch", "kept"] = "batch"
    # Whether the logits begin with the linear probe on the features as they are; else with 0.
    probe_first: bool = False


class DistillRecipe(TransferRecipe):
    """Training of a student on what a frozen classifier says of images (SimCLR v2, eq. 2)."""

    stage: Literal["distill"] = "distill"
    temperature: float = Field(default=0.1, gt=0)
    scale_by_temperature_squared: bool = False  # True: as in the authors' notebook


def mild_view(network: Recipe) -> ViewConfig:
    """What training on labels sees, made of the pretraining's views."""
    return network.data.training_view(network.method.view_configs.values())


def as_tuned(network: Recipe) -> Recipe:
    """The recipe of a run as fine-tuning takes it: tested at the size of the training's views.

    Weights that were published learned at one size, are adapted at a smaller one on a CPU, and few
    steps on labels do not bring them from one to the other.
    """
    if network.init is None:
        return network
    return chooser(network.data.kind).evaluated_as_trained(network)


def choose_finetuning(
    network: Recipe,
    num_labels: int,
    label_fraction: float,
    *,
    from_scratch: bool = False,
    optimizer: str | None = None,
    lr: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """How so many labeled images are learned from: fields of the recipe, with reasons.

    As SimCLR v2 publishes it where there are many labels: LARS, 0.005 sqrt(batch size), batch
    1,024, no weight decay, no warm-up, 60 epochs for 1 % of the labels and 30 for more.

    A run that began with published weights is tuned so that nothing is lost at first: from the
    linear probe on (Kumar et al. 2022, arXiv:2202.10054: LP-FT), with early layers and the
    statistics of BatchNorm as they are, by AdamW (Kumar et al. 2022, arXiv:2211.09359: plain SGD is
    behind it on images of another kind).

    Raises:
        UserError: another optimizer than sgd, lars or adamw.
    """
    if optimizer not in (None, "sgd", "lars", "adamw"):
        raise UserError(f"unknown optimizer {optimizer!r}; fine-tuning takes sgd, lars or adamw")
    reasons: dict[str, str] = {}
    init = None if from_scratch else network.init
    many = num_labels >= MANY_LABELS and not network.data.is_small and network.init is None
    if init is not None:
        reasons["batchnorm"] = "small batches of few images would change what it computes"
        reasons["probe_first"] = "random logits would mislead published weights"
        reasons["frozen"] = f"what stayed of {init.name} without labels stays"
    if optimizer is None:
        optimizer = "adamw" if init else "lars" if many and not from_scratch else "sgd"
        reasons["optimizer.name"] = (
            f"gentle, for the weights of {init.name}"
            if init is not None
            else "as published"
            if optimizer == "lars"
            else "random weights have no length to trust"
            if from_scratch
            else "LARS is for batches of a thousand large images"
        )
    if batch_size is None:
        batch_size = 1024 if many else 64
        while batch_size > max(2, num_labels):
            batch_size //= 2
        reasons["batch_size"] = "as published" if many else "many steps from few labels"
    if epochs is None:
        published = 60 if label_fraction <= 0.01 else 30
        steps_per_epoch = max(1, num_labels // batch_size)
        epochs = max(published, -(-FEWEST_STEPS // steps_per_epoch))
        reasons["epochs"] = (
            f"as published for {'1 %' if published == 60 else 'more than 1 %'} of the labels"
            if epochs == published
            else f"{FEWEST_STEPS} steps, because {num_labels} labels are few"
        )
    if lr is not None:
        base_lr = lr * 256 / batch_size
    elif optimizer == "lars":
        base_lr = 0.005 * batch_size**0.5 * 256 / batch_size
        reasons["optimizer.base_lr"] = "0.005 sqrt(batch size), as published"
    elif optimizer == "adamw":
        base_lr = ADAMW_LR
        reasons["optimizer.base_lr"] = "that of adapting published weights"
    else:
        base_lr = SCRATCH_LR if from_scratch else SGD_LR
        reasons["optimizer.base_lr"] = "usual for SGD" + (
            " and random weights" if from_scratch else " and pretrained weights"
        )
    return {
        "optimizer": {
            "name": optimizer,
            "base_lr": base_lr,
            "weight_decay": 5e-4 if from_scratch else 0.0,
            "warmup_epochs": epochs / 20 if from_scratch else epochs / 10 if init else 0.0,
            "lars_momentum": "classic",
        },
        "batch_size": batch_size,
        "epochs": epochs,
        "frozen": 0.0 if init is None else init.frozen,
        "batchnorm": "batch" if init is None else "kept",
        "probe_first": init is not None,
        "reasons": reasons,
    }


def choose_distillation(
    teacher: Recipe,
    num_images: int,
    temperature: float,
    *,
    scale_by_temperature_squared: bool = False,
    lr: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Optimizer, batch size and epochs of the pretraining, as in the paper, with reasons.

    LARS does not notice the size of gradients, SGD does: the logits' are 1 / temperature times as
    large as without one, or temperature times where the loss is scaled by its square.
    """
    reasons: dict[str, str] = {"optimizer.name": "that of the pretraining, as in the paper"}
    if batch_size is None:
        batch_size = teacher.batch_size
        while batch_size > max(2, num_images):
            batch_size //= 2
        reasons["batch_size"] = "that of the pretraining"
    if epochs is None:
        epochs = teacher.epochs
        reasons["epochs"] = "those of the pretraining"
    config = teacher.optimizer
    base_lr = config.base_lr if lr is None else lr * 256 / batch_size
    if lr is None and config.name == "sgd":
        base_lr *= 1 / temperature if scale_by_temperature_squared else temperature
        reasons["optimizer.base_lr"] = (
            "that of the pretraining over the size that the temperature gives gradients"
        )
    warmup = min(config.warmup_epochs, epochs / 10)
    return {
        "optimizer": config.model_dump() | {"base_lr": base_lr, "warmup_epochs": warmup},
        "batch_size": batch_size,
        "epochs": epochs,
        "reasons": reasons,
    }
