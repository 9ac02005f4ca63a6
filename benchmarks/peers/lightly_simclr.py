"""lightly's own SimCLR example, timed; runs in an environment where lightly is installed.

    PEER_PYTHON benchmarks/peers/lightly_simclr.py views|train FOLDER STEPS

Data set, transform, loader, head, loss and optimizer are those of lightly's example
(examples/pytorch/simclr.py), with its input size 32, batch 256, 2 workers, and a ResNet-18 whose
stem is the small-image one. Prints images per second (one image is two views).
"""

import sys
import time

import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from torch import nn

BATCH, WARM_UP = 256, 2


class SimCLR(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet18()
        resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        resnet.maxpool = nn.Identity()
        self.backbone = nn.Sequential(*list(resnet.children())[:-1])
        self.projection_head = SimCLRProjectionHead(512, 512, 128)

    def forward(self, x):
        return self.projection_head(self.backbone(x).flatten(start_dim=1))


def main() -> None:
    what, folder, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    dataset = LightlyDataset(folder, transform=SimCLRTransform(input_size=32, gaussian_blur=0.0))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=2
    )
    model, criterion = SimCLR(), NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    start = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        if step == WARM_UP + steps:
            break
        if what == "views":
            continue
        x0, x1 = batch[0]
        loss = criterion(model(x0), model(x1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(steps * BATCH / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
