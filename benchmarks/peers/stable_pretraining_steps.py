"""stable-pretraining's views and methods, timed; runs in an environment where it is installed.

    PEER_PYTHON benchmarks/peers/stable_pretraining_steps.py TASK FOLDER BATCH STEPS

Data set, transforms and methods are its own, in float32, with a worker for each core, and the
teacher follows after each step. TASK: views (two SimCLR views of SIZE px), simclr (ResNet-18, stem
"small" or "standard"), byol (ResNet-50), dino (ViT-S/16, 2 views of 224 px and 6 of 96). Prints
images per second; an image is all its views.
"""

import argparse
import itertools
import time

import torch
import torchvision
from stable_pretraining import methods
from stable_pretraining.backbone import TeacherStudentWrapper, from_torchvision
from stable_pretraining.data import FromTorchDataset, transforms

WARM_UP = 2
WORKERS = torch.get_num_threads()  # a process for each core
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def view(size, strength, blur, solarize=0.0, scale=(0.08, 1.0)):
    jitter = transforms.ColorJitter(
        0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8
    )
    steps = [
        transforms.RGB(),
        transforms.RandomResizedCrop((size, size), scale=scale),
        transforms.RandomHorizontalFlip(),
        jitter,
        transforms.RandomGrayscale(p=0.2),
        transforms.PILGaussianBlur(p=blur),
    ]
    if solarize > 0:
        steps.append(transforms.RandomSolarize(128, p=solarize))
    return transforms.Compose(*steps, transforms.ToImage(mean=MEAN, std=STD))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["views", "simclr", "byol", "dino"])
    parser.add_argument("folder")
    parser.add_argument("batch", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--stem", default="small")
    args = parser.parse_args()

    model = None
    if args.task == "byol":
        views = [view(args.size, 0.5, 1.0), view(args.size, 0.5, 0.1, solarize=0.2)]
        model = methods.BYOL(resnet("resnet50"))
    elif args.task == "dino":
        views = [
            view(224, 0.5, 1.0, scale=(0.4, 1.0)),
            view(224, 0.5, 0.1, solarize=0.2, scale=(0.4, 1.0)),
            *[view(96, 0.5, 0.5, scale=(0.05, 0.4))] * 6,
        ]
        model = methods.DINO(encoder_kwargs={"dynamic_img_size": True})
    else:
        views = [view(args.size, 1.0, 0.0 if args.size <= 32 else 0.5)] * 2
        if args.task == "simclr":
            backbone = resnet("resnet18", low_resolution=args.stem == "small")
            model = methods.SimCLR(backbone, projector_dims=(512, 128))
    data = FromTorchDataset(
        torchvision.datasets.ImageFolder(args.folder),
        ["image", "label"],
        transform=transforms.MultiViewTransform(views),
    )
    loader = torch.utils.data.DataLoader(
        data, args.batch, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    optimizer = None if model is None else torch.optim.SGD(model.parameters(), lr=0.06)
    start = 0.0
    for step, batch in enumerate(batches):
        if step == WARM_UP:
            start = time.perf_counter()
        if step == WARM_UP + args.steps:
            break
        if model is None or optimizer is None:
            continue
        images = [one["image"] for one in batch["views"]]
        if args.task == "dino":
            output = model(global_views=images[:2], local_views=images[2:])
        else:
            output = model(*images)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        for part in model.modules():
            if isinstance(part, TeacherStudentWrapper):
                part.update_teacher()
    print(args.steps * args.batch / (time.perf_counter() - start))


def resnet(name, low_resolution=False):
    network = from_torchvision(name, low_resolution=low_resolution)
    network.fc = torch.nn.Identity()
    return network


if __name__ == "__main__":
    main()
