"""The SimCLR loop that one writes by hand for speed: bfloat16, channels_last, compiled.

    python benchmarks/peers/by_hand.py STEM BATCH STEPS [--no-compile]

ResNet-18 and NT-Xent on random images of 32 px that are on the device already: no views are made,
no data is read. Prints images per second; an image is two views.
"""

import sys
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

stem, batch, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
backbone = torchvision.models.resnet18()
backbone.fc = nn.Sequential(
    nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128)
)
if stem == "small":
    backbone.conv1, backbone.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
model = backbone.to(memory_format=torch.channels_last)
if "--no-compile" not in sys.argv:
    model = torch.compile(model)
optimizer = torch.optim.SGD(backbone.parameters(), lr=0.06, momentum=0.9, foreach=True)
x = torch.rand(2 * batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
target = torch.arange(2 * batch).roll(batch)
start = 0.0
for step in range(2 + steps):
    if step == 2:
        start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        z = model(x)
    z = F.normalize(z.float(), dim=1)
    loss = F.cross_entropy((z @ z.T / 0.2).fill_diagonal_(-torch.inf), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(steps * batch / (time.perf_counter() - start))
