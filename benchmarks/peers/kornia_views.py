"""Two SimCLR views of a batch with kornia; runs in an environment where kornia is installed.

    PEER_PYTHON benchmarks/peers/kornia_views.py SIZE BATCH STEPS

Crop, flip, jitter and grey, each image with choices of its own, on float images in memory. Prints
images per second; an image is two views.
"""

import sys
import time

import kornia.augmentation as K
import torch
from torch import nn

size, batch, steps = (int(argument) for argument in sys.argv[1:])
view = nn.Sequential(
    K.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
    K.RandomHorizontalFlip(),
    K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
    K.RandomGrayscale(p=0.2),
    K.Normalize(mean=(0.5,) * 3, std=(0.25,) * 3),
)
images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
start = 0.0
for step in range(3 + steps):
    if step == 3:
        start = time.perf_counter()
    pixels = images.float() / 255
    view(pixels), view(pixels)
print(steps * batch / (time.perf_counter() - start))
