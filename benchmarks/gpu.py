"""What a GPU does with this package, in one table and under five minutes.

    python benchmarks/gpu.py --cifar10 CIFAR10 --out gpu.json
    python benchmarks/gpu.py --rehearse

Where nothing can be installed it says which wheels must lie beside it (``wheels.py``). Every part
has a process and a limit of its own, so that one that fails or is slow leaves the others their
time; rows are printed as they come. Steps are those of a run: rows from memory, views on the
device, the method, the optimizer. --rehearse does all of it on small networks, on a processor too.
"""

import argparse
import gc
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import wheels

wheels.prepare()

import torch
from torch import Tensor, nn
from torch.profiler import profile

import cifar10_board as board
from similitude.data.loader import Loader, RowBatch
from similitude.devices import (
    CHOSEN,
    best_device,
    computing_in,
    name_of,
    number_of,
    peak_memory_bytes,
    profiled,
    wait_for,
)
from similitude.distributed import join_processes, rank
from similitude.images.backbones import BackboneConfig
from similitude.images.canvases import Canvases
from similitude.images.image_set import ImageSet
from similitude.nets import convert_sync_batchnorm
from similitude.recipes import RECIPES, Recipe, override
from similitude.recipes.arithmetic import choose_arithmetic
from similitude.recipes.budget import Work, counting
from similitude.training.profiling import IDLE, NETWORKS, own_seconds
from similitude.training.step import Pretraining

SECONDS = {"throughput": 80.0, "views": 25.0, "syncbn": 25.0, "compile": 60.0, "knn": 105.0}
NAMES = {  # of the steps, and their recipes: as published, and small
    "SimCLR, ResNet-50, 224 px": ("imagenet.simclr", "cifar10.simclr"),
    "MoCo v3, ViT-S/16, 224 px": ("imagenet.moco_v3_vit", "cifar10.moco_v3_vit"),
    "DINO, ViT-S/16, 224 and 96 px": ("imagenet.dino", "cifar10.dino"),
}
# Dense bfloat16, in TFLOP/s, as in the makers' data sheets; of H100 and H200 the SXM modules, and
# of cards the float32 accumulation. The first name that the card's contains.
PEAKS = {
    "B200": 2250, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "A100": 312,
    "A800": 312, "L40S": 362, "L40": 181, "L4": 121, "A10": 125, "A6000": 155, "A40": 150,
    "RTX 5090": 210, "RTX 4090": 165, "RTX 4080": 97, "RTX 3090": 71, "MI300X": 1307,
    "MI250X": 383,
}  # fmt: skip
MOST, FIRST = 4096, 64  # images of a batch
COUNTED = 16  # images of a step whose products are counted
STEPS = 1000  # of an epoch that is never ended
WARM_UP, TIMED = 3, 4.0  # steps; seconds
MARK = "ROW "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(SECONDS), default=list(SECONDS))
    parser.add_argument("--cifar10", type=Path, help="see cifar10_board.py")
    parser.add_argument("--knn-seconds", type=float, default=45.0, help="of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--known", type=json.loads, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        for row in DO[args.one](args):
            print(MARK + json.dumps(row), flush=True)
        print(MARK + "null", flush=True)  # what it has started may hold the pipe for longer
        return
    begun, device = time.perf_counter(), best_device()
    card = f"{name_of(device)} x {number_of(device.type)}, torch {torch.__version__}"
    print(f"{card}, {os.cpu_count()} cores\n", flush=True)
    if args.rehearse:
        print("A rehearsal: small networks and views in the place of those that are named.\n")
    print("| what | | |\n|---|---|---|", flush=True)
    rows: list[dict[str, Any]] = []
    for part in args.only:
        if part == "knn" and args.cifar10 is None and not args.rehearse:
            show({"what": "minutes to kNN on CIFAR-10", "value": "-", "note": "give --cifar10"})
            continue
        known = {r["what"]: (r["batch"], r["images_per_second"]) for r in rows if "batch" in r}
        extra = max(0.0, args.knn_seconds * len(args.seeds) - 45) if part == "knn" else 0.0
        limit = (SECONDS[part] + extra) * (10 if args.rehearse else 1)
        for row in of_process(part, limit, ["--known", json.dumps(known)]):
            rows.append({"part": part, **row})
            show(row)
        args.out.write_text(json.dumps({"card": card, "rows": rows}, indent=2))
    print(f"\n{time.perf_counter() - begun:.0f} s; the numbers are in {args.out}")


def show(row: dict[str, Any]) -> None:
    print(f"| {row['what']} | {row['value']} | {row.get('note', '')} |", flush=True)


def of_process(
    part: str, limit: float, words: Sequence[str], environment: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a part, as a process of its own makes them; it is ended at the limit."""
    command = [sys.executable, __file__, *sys.argv[1:], *words, "--one", part]
    told = [""]
    is_first = "--one" not in sys.argv  # who ends its children's children too
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=is_first,
    ) as process:
        ended: list[bool] = []

        def end() -> None:
            ended.append(True)
            os.killpg(process.pid, signal.SIGKILL) if is_first else process.kill()

        def hear() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                if line.strip():
                    told.append(line.strip())

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        listener = threading.Thread(target=hear)
        listener.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(MARK):
                row = json.loads(line.removeprefix(MARK))
                if row is None:
                    break
                yield row
        process.wait()
        timer.cancel()
        if is_first:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has left behind
        listener.join()
    if ended:
        yield {"what": part, "value": "-", "note": f"not done after {limit:.0f} s"}
    elif process.returncode:
        print("\n".join(told[-20:]), file=sys.stderr, flush=True)
        yield {"what": part, "value": "-", "note": told[-1].replace("|", "/")[:200]}


# --- steps -------------------------------------------------------------------------------------


def recipe_of(name: str, *, small: bool, compiled: bool = False) -> Recipe:
    """As a run on this machine has it."""
    recipe = RECIPES[NAMES[name][small]]()
    settings = [f"compile={str(compiled).lower()}", *([] if small else ["data.canvas_size=256"])]
    recipe = override(recipe, settings)
    return choose_arithmetic(recipe, recipe.backbone.build(), best_device())


def batches_of(recipe: Recipe, size: int) -> Generator[RowBatch, None, None]:
    """Batches without end, of random images."""
    rows = recipe.data.noise(COUNTED)
    assert isinstance(rows, Canvases)
    pixels = rows.pixels.repeat(-(-size // COUNTED), 1, 1, 1)[:size]
    images = ImageSet(pixels, torch.ones(size), [str(i) for i in range(size)])
    loader = Loader(images, batch_size=size, seed=0, total_steps=10**6, device=best_device())
    return iter(loader)


def largest_batch(module: Pretraining, most: int) -> int:
    """As many images as fit, by powers of two, or one and a half of one."""
    device, size, fits = module.device, FIRST, 0
    while size <= most:
        try:
            peak = trial(module, size)
        except torch.OutOfMemoryError:
            break
        fits = size
        if peak is not None:
            room = 0.95 * torch.cuda.get_device_properties(device).total_memory
            if 2 * peak > room:
                size = size * 3 // 2
                if 1.5 * peak > room or size % 2 or fits & (fits - 1):
                    break
                continue
        size *= 2
    if fits == 0:
        raise SystemExit(f"{FIRST} images do not fit on {name_of(device)}")
    return fits


def trial(module: Pretraining, size: int) -> int | None:
    """Two steps; the most memory that they held, where it is counted."""
    device = module.device
    free(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with closing(batches_of(module.recipe, size)) as batches:
        for _ in range(2):
            module.training_step(next(batches))
    wait_for(device)
    return peak_memory_bytes(device)


def free(device: torch.device) -> None:
    """Give back what nothing holds any more, as after a step that did not fit."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def images_per_second(module: Pretraining, size: int, seconds: float) -> float:
    module.optimizer.zero_grad()
    free(module.device)
    with closing(batches_of(module.recipe, size)) as batches:
        step = lambda: module.training_step(next(batches))  # noqa: E731
        return size * per_second(step, seconds, module.device)


def per_second(do: Callable[[], Any], seconds: float, device: torch.device) -> float:
    """How often it is done in a second, after it was done a few times."""
    for _ in range(WARM_UP):
        do()
    wait_for(device)
    start, done = time.perf_counter(), 0
    while done < 3 or time.perf_counter() - start < seconds:
        do()
        done += 1
        if done % 4 == 0:
            wait_for(device)  # or the clock would see what is given out, not what is done
    wait_for(device)
    return done / (time.perf_counter() - start)


def flops_of_image(module: Pretraining) -> float:
    """Products and sums of a step, for an image: of linear layers, convolutions, attention."""
    with closing(batches_of(module.recipe, COUNTED)) as batches, counting(module.method) as calls:
        module.training_step(next(batches))
    work = sum(calls, Work())
    return 2 * (work.dense + work.depthwise) / COUNTED


def shares(module: Pretraining, size: int) -> tuple[float, float]:
    """Of the time of a step: outside the networks, and in which the GPU has nothing to do."""
    with (
        closing(batches_of(module.recipe, size)) as batches,
        profile(activities=profiled(module.device), acc_events=True) as profiler,
    ):
        for _ in range(4):
            module.training_step(next(batches))
        wait_for(module.device)
    seconds = own_seconds(profiler.events())
    total = sum(seconds.values()) or 1.0
    inside = sum(seconds.get(stage, 0.0) for stage in NETWORKS)
    return 1 - inside / total, seconds.get(IDLE, 0.0) / total


def throughput(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    device = best_device()
    card = name_of(device)
    peak = next((tera * 1e12 for name, tera in PEAKS.items() if name in card), None)
    for name in NAMES:
        module = board.module_of(recipe_of(name, small=args.rehearse), STEPS)
        flops = flops_of_image(module)
        size = largest_batch(module, FIRST if args.rehearse else MOST)
        speed = images_per_second(module, size, 1.0 if args.rehearse else TIMED)
        outside, idle = shares(module, size)
        of_peak = None if peak is None else flops * speed / peak
        note = [
            f"batch {size}, {module.recipe.precision}",
            "no published peak" if of_peak is None else f"{of_peak:.0%} of peak bf16",
            f"{outside:.0%} outside the networks",
            *([] if device.type == "cpu" else [f"of which idle {idle:.0%}"]),
            f"{flops * speed / 1e12:.3g} TFLOP/s",
        ]
        yield {
            "what": name,
            "value": f"{speed:,.0f} images/s",
            "note": ", ".join(note),
            "images_per_second": speed,
            "batch": size,
            "flops_of_image": flops,
            "share_of_peak": of_peak,
            "outside_networks": outside,
            "idle": idle,
            "memory_bytes": peak_memory_bytes(device),
        }
        del module
        free(device)


def compiled(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The fastest to compile first: what is left of the time goes to the others."""
    for name in sorted(NAMES, key=lambda name: "ResNet" in name or 2 * ("DINO" in name)):
        seconds = 1.0 if args.rehearse else TIMED
        size, plain = args.known.get(name) or (FIRST, None)
        if plain is None:
            module = board.module_of(recipe_of(name, small=args.rehearse), STEPS)
            plain = images_per_second(module, size, seconds)
        module = board.module_of(recipe_of(name, small=args.rehearse, compiled=True), STEPS)
        with closing(batches_of(module.recipe, size)) as batches:
            start = time.perf_counter()
            module.training_step(next(batches))
            wait_for(module.device)
            first = time.perf_counter() - start
        speed = images_per_second(module, size, seconds)
        yield {
            "what": f"{name}, compiled",
            "value": f"{speed:,.0f} images/s",
            "note": f"{speed / plain:.2f} times {plain:,.0f} without, batch {size}, "
            f"first step {first:.0f} s",
            "images_per_second": speed,
            "without": plain,
            "first_step": first,
        }


# --- views -------------------------------------------------------------------------------------


def views(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Two views of SimCLR's recipe of every image."""
    device, name = best_device(), next(iter(NAMES))
    recipe = recipe_of(name, small=args.rehearse)
    size, seconds = (32, 0.5) if args.rehearse else (512, 2.5)
    view: Any = recipe.method.view_configs["view"]
    side = view.size or recipe.facts.size
    canvases = recipe.data.noise(size)
    assert isinstance(canvases, Canvases)
    rows, index = canvases.to(device), torch.arange(size)
    make = board.module_of(recipe, STEPS).multi_view
    ours = size * per_second(lambda: make(rows, index, seed=0, epoch=0), seconds, device)
    what = f"two views of {side} px"
    yield {"what": f"{what}, ours", "value": f"{ours:,.0f} images/s", "images_per_second": ours}

    whole = rows.pixels
    for peer, of_batch in PEERS.items():
        try:
            change, one_by_one, place = of_batch(view, side, device)
        except ImportError as error:
            note = f"wheel of {error.name} missing: python benchmarks/wheels.py"
            yield {"what": f"{what}, {peer}", "value": "-", "note": note}
            continue
        there = whole.to(place)

        def both(
            there: Tensor = there, change: Any = change, one_by_one: bool = one_by_one
        ) -> None:
            for _ in range(2):
                if one_by_one:
                    for image in there[:16]:
                        change(image)
                else:
                    change(there.float() / 255)

        count = 16 if one_by_one else size
        theirs = count * per_second(both, seconds, place)
        yield {
            "what": f"{what}, {peer}",
            "value": f"{theirs:,.0f} images/s",
            "note": f"ours {ours / theirs:.1f} times",
            "images_per_second": theirs,
        }


def kornia_batch(view: Any, side: int, device: torch.device) -> Any:
    import kornia.augmentation as K

    kernel = 2 * view.blur_radius(side) + 1
    change = nn.Sequential(
        K.RandomResizedCrop((side, side), scale=view.crop_scale, resample=view.interpolation),
        K.RandomHorizontalFlip(view.flip),
        K.ColorJitter(*view.jitter, p=view.jitter_probability),
        K.RandomGrayscale(p=view.grey),
        *(
            [K.RandomGaussianBlur((kernel, kernel), view.blur_sigma, p=view.blur)]
            if view.blur
            else []
        ),
    )
    return change, False, device


def torchvision_image(view: Any, side: int, device: torch.device) -> Any:
    from torchvision.transforms import InterpolationMode, v2

    kernel = 2 * view.blur_radius(side) + 1
    change = v2.Compose(
        [
            v2.RandomResizedCrop(
                side,
                scale=view.crop_scale,
                interpolation=InterpolationMode(view.interpolation),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(view.flip),
            v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_probability),
            v2.RandomGrayscale(view.grey),
            v2.RandomApply([v2.GaussianBlur(kernel, view.blur_sigma)], view.blur),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return change, True, device


def torchvision_on_a_core(view: Any, side: int, device: torch.device) -> Any:
    torch.set_num_threads(1)
    return torchvision_image(view, side, torch.device("cpu"))


PEERS: dict[str, Callable[[Any, int, torch.device], Any]] = {
    "kornia, batches on the device": kornia_batch,
    "torchvision v2, image by image on the device": torchvision_image,
    "torchvision v2, image by image on one core": torchvision_on_a_core,
}


# --- BatchNorm over processes ------------------------------------------------------------------


def syncbn(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Two processes: on the one card through gloo, or with a card each through nccl."""
    device = best_device()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {} if number_of("cuda") > 1 else {CHOSEN: "cuda:0" if device.type == "cuda" else "cpu"}
    places = [
        {
            "RANK": str(i),
            "LOCAL_RANK": str(i),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            **shared,
        }
        for i in range(2)
    ]
    limit = SECONDS["syncbn"] * (10 if args.rehearse else 1)
    other = threading.Thread(
        target=lambda: list(of_process("syncbn process", limit, [], places[1])), daemon=True
    )
    other.start()
    yield from of_process("syncbn process", limit, [], places[0])
    other.join(limit)


def syncbn_process(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    join_processes()
    device = best_device()
    small = args.rehearse
    config = BackboneConfig(
        name="resnet18" if small else "resnet50", base_width=4 if small else None
    )
    x = torch.randn(
        8 if small else 64, 3, 32 if small else 224, 32 if small else 224, device=device
    )
    x = x.contiguous(memory_format=torch.channels_last)
    kinds: dict[str, Callable[[nn.Module], nn.Module]] = {
        "of each process alone": lambda network: network,
        "ours": convert_sync_batchnorm,
        "PyTorch's": nn.SyncBatchNorm.convert_sync_batchnorm,
    }
    how = f"{torch.distributed.get_backend()}, two processes on {number_of('cuda') or 'no'} GPU"
    for name, convert in kinds.items():
        torch.manual_seed(0)
        network = convert(config.build()).to(device).to(memory_format=torch.channels_last)

        def step(network: nn.Module = network) -> None:
            with computing_in(torch.bfloat16, device):
                loss = network(x).float().square().mean()
            loss.backward()

        what = f"BatchNorm {name}, {config.name}, {how}"
        try:
            times = []
            for number in range(WARM_UP + 5):
                torch.distributed.barrier()
                start = time.perf_counter()
                step()
                wait_for(device)
                if number >= WARM_UP:
                    times.append(time.perf_counter() - start)
        except (RuntimeError, ValueError) as error:
            note = str(error).splitlines()[0]
            if rank() == 0:
                yield {"what": what, "value": "-", "note": f"not here: {note}"}
            continue
        if rank() == 0:
            took = 1e3 * statistics.median(times)
            note = f"forward and backward of {len(x)} images in each process"
            yield {"what": what, "value": f"{took:.1f} ms", "note": note, "milliseconds": took}
    torch.distributed.barrier()
    sys.stdout.flush()


# --- minutes to kNN ----------------------------------------------------------------------------


def minutes(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    train, test = board.colors() if args.rehearse else board.images_of(args.cifar10)
    recipe = board.board_recipe("cifar10.simclr", train, [], small=args.rehearse)
    epochs = 3 if args.rehearse else board.epochs_in(args.knn_seconds, recipe, train)
    results = []
    for result in board.runs(recipe, train, test, args.seeds, epochs, max(1, epochs // 12)):
        results.append(result)
        yield {
            "what": f"CIFAR-10, SimCLR, ResNet-18, {epochs} epochs, seed {result.seed}",
            "value": f"kNN {result.best:.1%}",
            "note": f"{result.trained:.0f} s of training, {result.evaluated:.0f} s of evaluation",
            "best": result.best,
            "marks": result.marks,
            "trained": result.trained,
        }
    for mark in board.MARKS:
        yield {"what": f"seconds to {mark:.0%} kNN-20", "value": board.told(results, mark)}


DO: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "throughput": throughput,
    "views": views,
    "syncbn": syncbn,
    "syncbn process": syncbn_process,
    "compile": compiled,
    "knn": minutes,
}


if __name__ == "__main__":
    main()
