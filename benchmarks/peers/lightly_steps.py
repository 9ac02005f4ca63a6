"""lightly's own examples, timed; runs in an environment where lightly and timm are installed.

    PEER_PYTHON benchmarks/peers/lightly_steps.py TASK FOLDER BATCH STEPS

Data set, transforms, loader, heads, losses and optimizer are those of lightly's examples
(examples/pytorch/simclr.py, byol.py, dino.py), in float32 as there; each core has a worker, which
stays for all epochs. TASK: views (two SimCLR views of SIZE px), simclr (ResNet-18, stem "small" or
"standard"), byol (ResNet-50), dino (ViT-S/16, 2 views of 224 px and 6 of 96). Prints images per
second; an image is all its views.
"""

import argparse
import copy
import itertools
import time

import timm
import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    DINOProjectionHead,
    SimCLRProjectionHead,
)
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import DINOTransform, SimCLRTransform
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from torch import nn

WARM_UP = 2
WORKERS = torch.get_num_threads()  # a process for each core


def resnet(name, stem="standard"):
    network = getattr(torchvision.models, name)()
    if stem == "small":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return nn.Sequential(*list(network.children())[:-1], nn.Flatten())


class SimCLR(nn.Module):
    def __init__(self, stem):
        super().__init__()
        self.backbone = resnet("resnet18", stem)
        self.projection_head = SimCLRProjectionHead(512, 512, 128)
        self.criterion = NTXentLoss()

    def loss(self, views):
        z0, z1 = (self.projection_head(self.backbone(x)) for x in views)
        return self.criterion(z0, z1)


class BYOL(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = resnet("resnet50")
        self.projection_head = BYOLProjectionHead(2048, 4096, 256)
        self.prediction_head = BYOLPredictionHead(256, 4096, 256)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, views):
        update_momentum(self.backbone, self.backbone_momentum, m=0.99)
        update_momentum(self.projection_head, self.projection_head_momentum, m=0.99)
        p0, p1 = (self.prediction_head(self.projection_head(self.backbone(x))) for x in views)
        with torch.no_grad():
            z0, z1 = (self.projection_head_momentum(self.backbone_momentum(x)) for x in views)
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))


class DINO(nn.Module):
    def __init__(self):
        super().__init__()
        vit = timm.create_model("vit_small_patch16_224", num_classes=0, dynamic_img_size=True)
        self.student_backbone = vit
        self.teacher_backbone = copy.deepcopy(vit)
        self.student_head = DINOProjectionHead(384, 2048, 256, 65_536, freeze_last_layer=1)
        self.teacher_head = DINOProjectionHead(384, 2048, 256, 65_536)
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)
        self.criterion = DINOLoss(output_dim=65_536)

    def loss(self, views):
        update_momentum(self.student_backbone, self.teacher_backbone, m=0.996)
        update_momentum(self.student_head, self.teacher_head, m=0.996)
        with torch.no_grad():
            teacher = [self.teacher_head(self.teacher_backbone(x)) for x in views[:2]]
        student = [self.student_head(self.student_backbone(x)) for x in views]
        return self.criterion(teacher, student, epoch=0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["views", "simclr", "byol", "dino"])
    parser.add_argument("folder")
    parser.add_argument("batch", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--stem", default="small")
    args = parser.parse_args()

    if args.task == "byol":
        transform = BYOLTransform(
            BYOLView1Transform(input_size=args.size), BYOLView2Transform(input_size=args.size)
        )
        model = BYOL()
    elif args.task == "dino":
        transform, model = DINOTransform(), DINO()
    else:
        blur = 0.0 if args.size <= 32 else 0.5  # no blur of small images, as in the paper
        transform = SimCLRTransform(input_size=args.size, gaussian_blur=blur)
        model = None if args.task == "views" else SimCLR(args.stem)
    loader = torch.utils.data.DataLoader(
        LightlyDataset(args.folder, transform=transform),
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    if model is not None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.06)
    start = 0.0
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for step, batch in enumerate(epochs):
        if step == WARM_UP:
            start = time.perf_counter()
        if step == WARM_UP + args.steps:
            break
        if model is not None:
            loss = model.loss(batch[0])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    print(args.steps * args.batch / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
