"""A hundred million samples behind a URL: memory over the steps, and the order after a kill -9.

    python benchmarks/streams.py [--shards 10000] [--each 10000] [--steps 600] [--work FOLDER]

The file system is simulated: the bytes of a shard are computed when they are asked for, all shards
have one layout and every image other pixels. The index of all is written to --work (some 60 bytes a
sample) by the code that any shards have, but for the headers, which are read of a few shards, for
the rate, and repeated for the others. Then a process of its own takes batches and writes a hash of
positions and pixels for each; the same again is killed in the middle and resumed. Prints Markdown.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import fsspec

from similitude.data import shard_index
from similitude.data.index import Shards
from similitude.data.loader import Loader
from similitude.data.shard_index import indexed
from similitude.data.stores import files_of
from similitude.images.decoding import IMAGES
from similitude.images.loading import load_images
from similitude.images.opening import open_source

SIDE, CLASSES, BATCH, SCANNED = 16, 1000, 256, 20
BLOCK = tarfile.BLOCKSIZE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=10_000, help="samples of a shard")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--one", nargs=2, type=int, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    Simulated.each = args.each
    fsspec.register_implementation("simulated", Simulated, clobber=True)
    url = f"simulated://web/{{00000..{args.shards - 1:05d}}}.tar"
    if args.one:
        take(url, *args.one)
        return
    work = Path(tempfile.mkdtemp(prefix="streams-", dir=args.work))
    os.environ["XDG_CACHE_HOME"] = str(work)
    try:
        index(url, args.each)
        command = [sys.executable, __file__, f"--shards={args.shards}", f"--each={args.each}"]
        whole, memory, seconds = taken(command, 0, args.steps)
        epoch = args.shards * args.each // BATCH
        rows = [f"| {step:,} | {anon} | {file} |" for step, anon, file in memory]
        print("| step | memory of the process, MB | mapped files, MB |\n|---|---|---|")
        print("\n".join(rows))
        print(f"\n{args.steps * BATCH / seconds:.0f} images/s", flush=True)
        first, _, _ = taken(command, 0, args.steps, kill_after=args.steps // 2)
        rest, _, _ = taken(command, len(first), args.steps)
        print(f"killed after step {len(first)}, resumed: same hashes {first + rest == whole}")
        over, memory, _ = taken(command, epoch - 20, epoch + 20)
        again, _, _ = taken(command, epoch + 5, epoch + 20)
        print(
            f"over the end of an epoch, at step {epoch:,}: same hashes {over[25:] == again}, "
            f"{memory[-1][1]} MB"
        )
    finally:
        shutil.rmtree(work)


class Simulated(fsspec.AbstractFileSystem):
    """Tar files of one layout, whose images are a hash of their place."""

    protocol = "simulated"
    each: int
    image = len(f"P6 {SIDE} {SIDE} 255\n") + 3 * SIDE * SIDE
    stride = BLOCK + -(-image // BLOCK) * BLOCK + 2 * BLOCK  # of an image and its class

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        size = self.each * self.stride + 2 * BLOCK
        return {"name": path, "size": size, "type": "file", "ETag": "1"}

    def cat_file(self, path: str, start: int = 0, end: int = 0, **_: Any) -> bytes:
        shard = int(Path(path).stem)
        end = min(end, self.info(path)["size"])
        first, last = start // self.stride, -(-end // self.stride)
        found = b"".join(self.sample(shard, k) for k in range(first, last))
        return found[start - first * self.stride : end - first * self.stride]

    def sample(self, shard: int, number: int) -> bytes:
        if number >= self.each:
            return bytes(self.stride)
        pixels = hashlib.shake_128(f"{shard}/{number}".encode()).digest(3 * SIDE * SIDE)
        image = b"P6 %d %d 255\n" % (SIDE, SIDE) + pixels
        label = str(number % CLASSES).encode()
        return (
            header(number, "ppm", len(image))
            + image.ljust(self.stride - 3 * BLOCK, b"\0")
            + header(number, "cls", len(label))
            + label.ljust(BLOCK, b"\0")
        )


@functools.lru_cache(maxsize=1024)
def header(number: int, suffix: str, size: int) -> bytes:
    info = tarfile.TarInfo(f"{number:06d}.{suffix}")
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def index(url: str, each: int) -> None:
    """Read the headers of a few shards, for the rate, then write the index of all."""
    store, paths = files_of(url, [".tar"])
    scan = shard_index._scan
    start, seconds = time.process_time(), time.perf_counter()
    some = Shards.of(store, paths[:SCANNED])
    indexed(some, "some", IMAGES)
    rate = SCANNED * each / (time.process_time() - start)
    wall = SCANNED * each / (time.perf_counter() - seconds)
    found = scan(some, 0, False, IMAGES)

    def repeated(shards: Shards, number: int, *_: Any) -> Any:
        name = Path(shards.paths[number]).name
        return found._replace(names=[name + n[len(name) :] for n in found.names])

    shard_index._scan = repeated
    start = time.perf_counter()
    made = indexed(Shards.of(store, paths), url, IMAGES)
    seconds = time.perf_counter() - start
    shard_index._scan = scan
    size = sum(file.stat().st_size for file in made.folder.iterdir())
    print(
        f"{len(made):,} samples in {len(paths):,} shards; headers: {rate:,.0f} samples a second of "
        f"a core, {wall:,.0f} by the clock; "
        f"index: {seconds:.0f} s without headers, {size / 1e9:.2f} GB, most memory "
        f"{status('VmHWM')} MB",
        flush=True,
    )


def taken(
    command: list[str], first: int, last: int, kill_after: int | None = None
) -> tuple[list[str], list[tuple[int, int, int]], float]:
    """Hashes of the steps, (step, own MB, mapped MB) now and then, and seconds."""
    hashes: list[str] = []
    memory: list[tuple[int, int, int]] = []
    begin = time.perf_counter()
    with subprocess.Popen(
        [*command, "--one", str(first), str(last)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row = json.loads(line)
            if not hashes:
                begin = time.perf_counter()
            hashes.append(row["hash"])
            if "anon" in row:
                memory.append((row["step"], row["anon"], row["file"]))
            if len(hashes) == kill_after:
                process.send_signal(signal.SIGKILL)
                break
    return hashes, memory, time.perf_counter() - begin


def take(url: str, first: int, last: int) -> None:
    """Batches of these steps: a line of JSON for each."""
    source = open_source(url)
    no_room = Path(os.environ["XDG_CACHE_HOME"]) / "no-folder"
    no_room.write_text("canvases are decoded again in every epoch, as where the disk has no room")
    images = load_images(source, SIDE, cache_dir=no_room, memory_limit_bytes=0)
    loader = Loader(images, batch_size=BATCH, seed=0, first_step=first, total_steps=last)
    for step, batch in enumerate(loader, first):
        digest = hashlib.sha256(batch.index.numpy().tobytes())
        digest.update(batch.rows.pixels.numpy().tobytes())
        row: dict[str, Any] = {"step": step, "hash": digest.hexdigest()[:16]}
        if step % 50 == 0 or step + 1 == last:
            row |= {"anon": status("RssAnon"), "file": status("RssFile")}
        print(json.dumps(row), flush=True)


def status(name: str) -> int:
    """A number of /proc/self/status, in MB."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    return 0 if found is None else int(found[1]) // 1000


if __name__ == "__main__":
    main()
