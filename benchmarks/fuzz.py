"""Damaged files of every kind are one sentence: no traceback, crash, gigabyte or wait.

    python benchmarks/fuzz.py [--count 10000] [--seed 0]

Good files of every format that is read (images, arrays, shards, packs, tables of labels, and
everything in a run folder) are mutated: bits flipped, bytes set, parts cut out, doubled, moved or
blown up. Each is then opened as a user would. A file passes if it is read or refused with the
project's own error, within 10 s and 1 GB. Prints a line for each that does not pass, then a table.
Exit status 1 if any did not.
"""

import argparse
import io
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

BYTES = 2**30
RUN_FILES = (
    "recipe.yaml",
    "metrics.csv",
    "health.json",
    "environment.json",
    "evaluation.json",
    "embedding.npz",
    "backbone.safetensors",
    "checkpoints/last.ckpt",
)


def encoded(image: Image.Image, suffix: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def image_files() -> dict[str, bytes]:
    """One small picture in each way that a format has to hold it."""
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-9, 10, (24, 32, 3)), axis=1) + 128
    color = Image.fromarray(smooth.clip(0, 255).astype(np.uint8))
    clear = color.convert("RGBA")
    clear.putalpha(Image.fromarray(smooth[..., 0].clip(0, 255).astype(np.uint8)))
    deep = Image.fromarray((smooth[..., 0].clip(0, 255) * 257).astype(np.uint16))
    real = Image.fromarray((smooth[..., 0] / 255).astype(np.float32))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encoded(color, "JPEG", quality=90, exif=exif),
        "jpeg, progressive": encoded(color, "JPEG", progressive=True),
        "jpeg, cmyk": encoded(color.convert("CMYK"), "JPEG"),
        "png": encoded(color, "PNG", exif=exif),
        "png, palette": encoded(color.quantize(16), "PNG", transparency=1),
        "png, alpha": encoded(clear, "PNG"),
        "png, deep": encoded(deep, "PNG"),
        "webp": encoded(color, "WEBP", quality=80, exif=exif),
        "webp, lossless": encoded(clear, "WEBP", lossless=True),
        "webp, animation": encoded(color, "WEBP", save_all=True, append_images=[color.rotate(9)]),
        "gif": encoded(color.quantize(64), "GIF", save_all=True, append_images=[color.rotate(9)]),
        "bmp": encoded(color, "BMP"),
        "bmp, palette": encoded(color.quantize(16), "BMP"),
        "tiff": encoded(color, "TIFF"),
        "tiff, lzw": encoded(color, "TIFF", compression="tiff_lzw"),
        "tiff, deflate": encoded(clear, "TIFF", compression="tiff_adobe_deflate"),
        "tiff, jpeg": encoded(color, "TIFF", compression="jpeg"),
        "tiff, deep": encoded(deep, "TIFF"),
        "tiff, float": encoded(real, "TIFF"),
        "ppm": encoded(color, "PPM"),
        "pgm": encoded(deep, "PPM"),
    }


def container_files(folder: Path) -> dict[str, bytes]:
    """Arrays, shards, packs and tables, by the suffix they need."""
    import similitude as sim

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 10, 10, 3), dtype=np.uint8)
    np.save(folder / "x.npy", pixels)
    np.savez(folder / "x.npz", x_train=pixels, y_train=np.arange(12) % 3, x_test=pixels[:4])
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i, picture in enumerate(pixels):
            for name, data in (
                (f"{i}.png", encoded(Image.fromarray(picture), "PNG")),
                (f"{i}.cls", str(i % 3).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    sim.pack(folder / "x.npz", folder / "x.pack")
    rows = "".join(f"{i:02d}.png,{'ab'[i % 2]}\n" for i in range(12))
    (folder / "x.csv").write_text(f"file,label\n{rows}")
    (folder / "photos").mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "photos" / f"{i:02d}.png")
    return {s: (folder / f"x.{s}").read_bytes() for s in ("npy", "npz", "tar", "pack", "csv")}


def make_run(folder: Path) -> Path:
    """A finished run with all its files."""
    import similitude as sim

    rng = np.random.default_rng(0)
    for c in range(2):
        (folder / "data" / "ab"[c]).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / "ab"[c] / f"{i}.png")
    tiny = ["backbone.base_width=4", "precision=float32", "memory_format=contiguous"]
    run = sim.pretrain(folder / "data", epochs=2, batch_size=8, out=folder / "run", overrides=tiny)
    assert run is not None
    run.evaluate(folder / "data", protocols=("knn",))
    return run.path


def mutate(content: bytes, chance: random.Random) -> bytes:
    """One to four changes."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        n = max(1, len(data))
        # headers decide most, so half of the places are near the beginning or the end
        place = chance.choice(
            (
                chance.randrange(n),
                chance.randrange(n),
                chance.randrange(min(n, 64)),
                n - 1 - chance.randrange(min(n, 64)),
            )
        )
        length = chance.choice((1, 2, 4, 16, 256))
        match chance.randrange(9):
            case 0:
                data[place : place + 1] = bytes(
                    [(data[place] if data else 0) ^ 1 << chance.randrange(8)]
                )
            case 1:
                data[place : place + length] = chance.randbytes(length)
            case 2:
                data[place : place + length] = b"\xff" * length
            case 3:
                data[place : place + length] = bytes(length)
            case 4:
                del data[place : place + length]
            case 5:
                data[place:place] = data[place : place + length] * chance.choice((1, 3, 50))
            case 6:
                del data[place:]
            case 7:
                other = chance.randrange(n)
                data[place : place + length] = data[other : other + length]
            case 8:
                huge = (
                    b"99999999999",
                    b"-1",
                    b"nan",
                    b"1e400",
                    b"[",
                    b"{",
                    b"\x00",
                    b'"',
                    b"&a *a",
                )
                data[place : place + length] = chance.choice(huge)
    return bytes(data)


def actions(folder: Path) -> dict[str, Callable[[bytes], object]]:
    """Kind of file -> what a user does with one; the good files lie in ``folder``."""
    import similitude as sim
    from similitude.data.labels import read_labels
    from similitude.images.decoding import UnreadableError, decode
    from similitude.images.loading import load_images
    from similitude.images.opening import open_parts, open_source
    from similitude.report import write_report

    def picture(content: bytes) -> None:
        try:
            decode(io.BytesIO(content), 8)
        except UnreadableError as error:
            if not 0 < len(str(error)) < 120:
                raise

    def container(suffix: str) -> Callable[[bytes], object]:
        def opened(content: bytes) -> None:
            place = folder / f"mutated.{suffix}"
            place.write_bytes(content)
            if suffix == "csv":
                read_labels(place, open_source(folder / "photos"))
            else:
                for source in open_parts(place):
                    load_images(source, 8)

        return opened

    def side_file(name: str) -> Callable[[bytes], object]:
        def opened(content: bytes) -> None:
            place = folder / "mutated-run"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(folder / "run", place)
            (place / name).write_bytes(content)
            for use in (
                lambda: sim.load(place).verdict,
                lambda: sim.load(place).backbone,
                lambda: sim.load(place).export(place / "out.safetensors"),
                lambda: write_report([place]),
            ):
                try:
                    use()
                except sim.UserError as error:
                    if not str(error).isprintable():
                        raise

        return opened

    found: dict[str, Callable[[bytes], object]] = dict.fromkeys(image_files(), picture)
    found |= {suffix: container(suffix) for suffix in ("npy", "npz", "tar", "pack", "csv")}
    return found | {name: side_file(name) for name in RUN_FILES}


def work(folder: Path, files: dict[str, bytes], pipe: Connection) -> None:
    """Open what is asked for, one after the other, in a process that may die of it."""
    import similitude as sim

    uses = actions(folder)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    while True:
        kind, seed = pipe.recv()
        try:
            with redirect_stdout(io.StringIO()):
                uses[kind](mutate(files[kind], random.Random(seed)))
            answer = ""
        except sim.UserError as error:
            answer = "" if str(error).isprintable() else f"not printable: {str(error)!r}"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"[:300]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
        pipe.send(answer or (f"{grown / BYTES:.1f} GB" if grown > BYTES else ""))


class Worker:
    """A process, replaced when it dies or hangs."""

    def __init__(self, folder: Path, files: dict[str, bytes], seconds: float) -> None:
        self.arguments, self.seconds = (folder, files), seconds
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (*self.arguments, theirs)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.is_fresh = True

    def opened(self, kind: str, seed: int) -> str:
        """What is wrong, or nothing."""
        self.pipe.send((kind, seed))
        if not self.pipe.poll(self.seconds + 60 * self.is_fresh):  # the first has to import all
            problem = f"more than {self.seconds:g} s"
        else:
            self.is_fresh = False
            try:
                answer = self.pipe.recv()
            except EOFError:
                self.process.join()
                answer = f"the process ended with {self.process.exitcode}"
            if not answer or (self.process.is_alive() and not answer.endswith(" GB")):
                return answer
            problem = answer
        self.process.kill()
        self.process.join()
        self.start()
        return problem


def kinds(names: list[str], count: int) -> Iterator[tuple[str, int]]:
    """Kind and seed of each file; images, which are opened in no time, are four fifths."""
    images = [name for name in names if name in image_files()]
    others = [name for name in names if name not in images]
    for i in range(count):
        group = others if i % 5 == 4 else images
        yield group[(i // 5 if i % 5 == 4 else i) % len(group)], i


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="in which a file must be told")
    args = parser.parse_args()
    failed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = image_files() | container_files(folder)
        run = make_run(folder)
        files |= {name: (run / name).read_bytes() for name in RUN_FILES}
        worker = Worker(folder, files, args.seconds)
        for kind, number in kinds(list(files), args.count):
            seed = args.seed * 1_000_003 + number
            tried[kind] += 1
            if problem := worker.opened(kind, seed):
                failed[kind] += 1
                print(json.dumps({"kind": kind, "seed": seed, "problem": problem}), flush=True)
        worker.process.kill()
    print("\n| kind | files | not right |\n|---|---|---|")
    for kind, count in tried.items():
        print(f"| {kind} | {count:,} | {failed[kind]} |")
    print(f"| all | {tried.total():,} | {failed.total()} |")
    sys.exit(failed.total() > 0)


if __name__ == "__main__":
    main()
