"""A method of similitude in a plain Lightning module, with Lightning's Trainer and callbacks.

    pip install similitude lightning
    python examples/lightning_module.py PHOTOS TEST_PHOTOS --method byol --epochs 20

Both folders have a folder of images for each class; labels are seen by the kNN score alone.
`similitude pretrain` does more: it resumes to the bit, tells whether learning worked and writes a
report. This is for projects that live in Lightning.
"""

import argparse
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.utils.data import DataLoader

import similitude as sim
from similitude.evaluation import KNNProbe, extract_features
from similitude.images.image_set import ImageSet
from similitude.images.views.config import ImageFacts
from similitude.method import Batch, Method, Progress


class Pretraining(lightning.LightningModule):
    """Trains a method: its views are made where it computes, and its loss is minimized by SGD."""

    def __init__(self, method: Method, facts: ImageFacts, *, lr: float, seed: int = 0) -> None:
        super().__init__()
        self.method, self.multi_view = method, method.views(facts)
        self.lr, self.seed = lr, seed

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """The loss of one batch of canvases."""
        canvases, index = batch
        total = int(self.trainer.estimated_stepping_batches)
        self.at = Progress(self.global_step, total, int(self.trainer.num_training_batches))
        views = self.multi_view(canvases, index, seed=self.seed, epoch=self.current_epoch)
        output = self.method.training_loss(Batch(views, index), self.at)
        self.log_dict({"loss": output.loss, **output.metrics}, prog_bar=True)
        return output.loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """What a method does to gradients."""
        self.method.before_step(self.at)

    def on_train_batch_end(self, *_: Any) -> None:
        """What moves after a step, such as BYOL's target network."""
        self.method.after_step(self.at)

    def configure_optimizers(self) -> Any:
        """SGD with a cosine schedule, stepped with every batch."""
        groups = self.method.param_groups()
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9, weight_decay=5e-4)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class KNNAccuracy(lightning.Callback):
    """Scores the features after every epoch: the one place where labels are seen."""

    def __init__(self, train: ImageSet, test: ImageSet, facts: ImageFacts) -> None:
        self.parts, self.facts = (train, test), facts

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Log the share of the test images whose class the nearest training images tell."""
        backbone = module.method.kept_backbone
        train, test = (extract_features(backbone, part, self.facts) for part in self.parts)
        module.log("knn", KNNProbe().fit(train.x, train.y).score(test.x, test.y), prog_bar=True)


def loader_of(images: ImageSet, batch_size: int) -> DataLoader[Any]:
    """Canvases, and the position of each: views are a function of seed, epoch and position."""

    def collate(positions: list[int]) -> tuple[Any, torch.Tensor]:
        index = torch.tensor(positions)
        return images.take(index), index

    numbers: Any = range(len(images))
    return DataLoader(numbers, batch_size, shuffle=True, drop_last=True, collate_fn=collate)


def main() -> None:
    """Train on the first folder, score on the second."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("test")
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", default="lightning_run")
    args = parser.parse_args()

    train, test = (
        sim.data.load_images(sim.data.open_source(folder), 32)
        for folder in (args.photos, args.test)
    )
    facts = ImageFacts(size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    lightning.seed_everything(0)
    backbone = sim.backbones.build_backbone(sim.backbones.BackboneConfig(stem="small"))
    config = sim.methods.make_config(args.method, {}).of_samples(len(train))
    method = sim.methods.build_method(config, backbone)
    module = Pretraining(method, facts, lr=0.03 * args.batch_size / 256)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        default_root_dir=args.out,
        log_every_n_steps=1,
        callbacks=[
            KNNAccuracy(train, test, facts),
            LearningRateMonitor(),
            ModelCheckpoint(monitor="knn", mode="max", filename="best"),
        ],
    )
    trainer.fit(module, loader_of(train, args.batch_size))
    torch.save(method.kept_backbone.state_dict(), f"{args.out}/backbone.pt")
    print(f"kNN {100 * trainer.callback_metrics['knn']:.1f} %: {args.out}/backbone.pt")


if __name__ == "__main__":
    main()
