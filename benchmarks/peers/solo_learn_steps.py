"""solo-learn's views and SimCLR loss, timed; runs in an environment where its files are installed.

    PEER_PYTHON -m pip install --no-deps solo-learn==1.0.2
    PEER_PYTHON benchmarks/peers/solo_learn_steps.py TASK FOLDER BATCH STEPS

The released package asks for a Lightning of 2021 and does not import beside a PyTorch of today, so
these are its building blocks: its files of views, loader and loss, which need only PyTorch, with
torchvision's ResNet-18 and the small stem of the other sides (its own pads by 2), in float32.
TASK: views (two of 32 px) or simclr (stem "small" or "standard"). Prints images per second.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import time

import torch
import torchvision
from torch import nn

WARM_UP = 2
WORKERS = torch.get_num_threads()  # a process for each core


def module(path):
    """One file of solo-learn, without its package."""
    files = importlib.metadata.files("solo-learn") or []
    file = next(file for file in files if str(file) == path).locate()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["views", "simclr"])
    parser.add_argument("folder")
    parser.add_argument("batch", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--stem", default="small")
    args = parser.parse_args()

    data = module("solo/utils/pretrain_dataloader.py")
    loss_of = module("solo/losses/simclr.py").simclr_loss_func
    view = data.CifarTransform(0.8, 0.8, 0.8, 0.2, gaussian_prob=0.0, crop_size=32)
    images = torchvision.datasets.ImageFolder(
        args.folder, data.FullTransformPipeline([data.NCropAugmentation(view, 2)])
    )
    loader = data.prepare_dataloader(images, args.batch, num_workers=WORKERS)
    backbone = torchvision.models.resnet18()
    backbone.fc = nn.Identity()
    if args.stem == "small":
        backbone.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.06)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    start = 0.0
    for step, (views, _) in enumerate(batches):
        if step == WARM_UP:
            start = time.perf_counter()
        if step == WARM_UP + args.steps:
            break
        if args.task == "views":
            continue
        loss = loss_of(*(head(backbone(x)) for x in views), temperature=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(args.steps * args.batch / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
