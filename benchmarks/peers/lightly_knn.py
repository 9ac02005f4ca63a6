"""SimCLR with lightly's parts on CIFAR-10, and kNN on its features; in lightly's environment.

    PEER_PYTHON benchmarks/peers/lightly_knn.py CIFAR10_FOLDER EPOCHS [--size 32] [--width 16]

Data set, transforms, loader (2 workers), head and loss are lightly's, in float32, with the crops,
jitter, rate and schedule of our SimCLR; the backbone is timm's ResNet-18 with the small-image stem,
whose first stage is WIDTH channels wide. Prints seconds of training, from the start of Python, and
the share of the test images that 20 nearest neighbors find.
"""

import argparse
import time

START = time.time()

import timm  # noqa: E402
import torch  # noqa: E402
from lightly.data import LightlyDataset  # noqa: E402
from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models.modules import SimCLRProjectionHead  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import transforms as T  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("epochs", type=int)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.3, help="at its peak, for 256 images")
    parser.add_argument("--temperature", type=float, default=0.2)
    args = parser.parse_args()
    torch.manual_seed(0)
    backbone = resnet18(args.width)
    head = SimCLRProjectionHead(8 * args.width, 512, 128)
    criterion = NTXentLoss(temperature=args.temperature)
    train = LightlyDataset(
        f"{args.folder}/train",
        transform=SimCLRTransform(args.size, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0),
    )
    loader = torch.utils.data.DataLoader(
        train, args.batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(
        parameters, lr=args.rate * args.batch / 256, momentum=0.9, weight_decay=1e-4
    )
    warmup, total = len(loader) // 2, args.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup),
        ],
        [warmup],
    )
    for _ in range(args.epochs):
        for views, *_ in loader:
            z0, z1 = (head(backbone(view)) for view in views)
            loss = criterion(z0, z1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds = time.time() - START
    features = {split: extract(backbone, f"{args.folder}/{split}") for split in ("train", "test")}
    print(seconds, knn(*features["train"], *features["test"]))


def resnet18(width):
    """With the small-image stem, and a first stage of that width."""
    channels = tuple(width * 2**i for i in range(4))
    network = timm.create_model("resnet18", num_classes=0, channels=channels)
    network.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    network.bn1, network.maxpool = nn.BatchNorm2d(width), nn.Identity()
    network.layer1[0] = type(network.layer1[0])(width, width)
    network.init_weights(zero_init_last=False)
    return network


@torch.inference_mode()
def extract(backbone, folder):
    normalize = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = LightlyDataset(folder, transform=T.Compose([T.ToTensor(), normalize]))
    loader = torch.utils.data.DataLoader(images, 512, num_workers=2)
    backbone.eval()
    found = [(backbone(x), y) for x, y, *_ in loader]
    return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])


def knn(bank, labels, queries, truth, k=20, temperature=0.07):
    bank, queries = (nn.functional.normalize(x, dim=1) for x in (bank, queries))
    right = 0
    for part, y in zip(queries.split(1000), truth.split(1000), strict=True):
        similarity, index = (part @ bank.T).topk(k, dim=1)
        votes = torch.zeros(len(part), int(labels.max()) + 1)
        votes.scatter_add_(1, labels[index], (similarity / temperature).exp())
        right += (votes.argmax(1) == y).sum().item()
    return right / len(queries)


if __name__ == "__main__":
    main()
