"""A hundred million samples behind a URL: memory over the steps, and the order after a kill -9.

    python benchmarks/streams.py [--shards 10000] [--each 10000] [--steps 600] [--work FOLDER]
    python benchmarks/streams.py --parquet 5000 [--delay 0.02]

The file system is simulated: the bytes of a shard are computed when they are asked for, all shards
have one layout and every image other pixels. The index of all is written to --work (some 60 bytes a
sample) by the code that any shards have, but for the headers, which are read of a few shards, for
the rate, and repeated for the others. Then a process of its own takes batches and writes a hash of
positions and pixels for each; the same again is killed in the middle and resumed. Prints Markdown.

With --parquet so many JPEG files of 500 px lie in tar files and in Parquet files behind an http
server of this machine, and two epochs of each are decoded as they are asked for.
"""

import argparse
import functools
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from PIL import Image

from process import memory
from similitude import randomness
from similitude.data import row_groups, shard_index
from similitude.data.index import Shards
from similitude.data.loader import Loader
from similitude.data.shard_index import indexed
from similitude.data.stores import files_of
from similitude.images import loading
from similitude.images.decoding import IMAGES
from similitude.images.loading import load_images
from similitude.images.opening import open_source

SIDE, CLASSES, BATCH, SCANNED = 16, 1000, 256, 20
BLOCK = tarfile.BLOCKSIZE
WINDOW = 1 << 26  # bytes: a quarter of what is used, as the files are small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=10_000, help="samples of a shard")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--one", nargs=2, type=int, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS
    )
    parser.add_argument("--parquet", type=int, metavar="N", help="images in Parquet and tar files")
    parser.add_argument(
        "--delay", type=float, default=0.0, help="seconds before the http server answers"
    )
    args = parser.parse_args()
    if args.parquet:
        compare(args.parquet, args.delay, args.work)
        return
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
    found = scan(some, 0, False, IMAGES, threading.Event())

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
        f"{megabytes('VmHWM')} MB",
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
            row |= {"anon": megabytes("RssAnon"), "file": megabytes("RssFile")}
        print(json.dumps(row), flush=True)


def compare(number: int, delay: float, work: Path | None) -> None:
    """Images a second, bytes and memory of two epochs, of tar files and of Parquet files."""
    loading.LAZY_FROM, randomness.WINDOW_BYTES = 0, WINDOW
    row_groups.WINDOW_BYTES = WINDOW
    with tempfile.TemporaryDirectory(prefix="streams-", dir=work) as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        write_both(folder, number)
        no_room = folder / "no-folder"
        no_room.touch()
        size = sum(file.stat().st_size for file in folder.glob("*.tar")) / 1e6
        print(f"{number:,} images, {size:.0f} MB; windows of {WINDOW / 1e6:.0f} MB\n")
        print(
            "| files | s to open | images/s | bytes asked for / of the files | requests | MB more |"
        )
        print("|---|---|---|---|---|---|")
        for suffix in ("tar", "parquet"):
            files = sorted(folder.glob(f"*.{suffix}"))
            asked, answered = multiprocessing.Pipe()
            server = multiprocessing.Process(target=serve, args=(folder, delay, answered))
            server.start()
            url = asked.recv()
            start = time.perf_counter()
            source = open_source(f"{url}/{{0..{len(files) - 1}}}.{suffix}")
            opened = time.perf_counter() - start
            images = load_images(source, 112, cache_dir=no_room, memory_limit_bytes=0)
            asked.send("begin")
            asked.recv()
            start, before = time.perf_counter(), megabytes("RssAnon")
            steps = 2 * (number // 250)
            taken = most = 0
            for batch in Loader(images, batch_size=250, seed=0, total_steps=steps):
                taken, most = taken + len(batch.rows), max(most, megabytes("RssAnon"))
            rate = taken / (time.perf_counter() - start)
            asked.send("count")
            requests, sent = asked.recv()
            share = sent / sum(file.stat().st_size for file in files) / 2
            row = [suffix, f"{opened:.1f}", f"{rate:.0f}", f"{share:.2f}", requests, most - before]
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            asked.send("end")
            server.join()


def write_both(folder: Path, number: int) -> None:
    """The same JPEG files in five tar files, and in five Parquet files of row groups of 100."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(50):
        small = rng.integers(0, 256, (125, 125, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((500, 500)).save(file, "JPEG", quality=85)
        jpegs.append(file.getvalue())
    each = number // 5
    for s in range(5):
        # every file has other bytes: a number after its end
        contents = [jpegs[i % 50] + i.to_bytes(8, "big") for i in range(s * each, (s + 1) * each)]
        with tarfile.open(folder / f"{s}.tar", "w") as tar:
            for i, content in enumerate(contents):
                info = tarfile.TarInfo(f"{i:06d}.jpg")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        table = pa.table({"image": [{"bytes": c, "path": None} for c in contents]})
        pq.write_table(table, folder / f"{s}.parquet", row_group_size=100)


def serve(folder: Path, delay: float, connection: Any) -> None:
    """A server in a process of its own, which counts what it gives."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import serving

    with serving(folder) as server:
        server.delay = delay
        connection.send(server.url)
        while (word := connection.recv()) != "end":
            if word == "begin":
                server.asked.clear()
            sent = sum(stop - start for _, start, stop in server.asked)
            connection.send((len(server.asked), sent))


def megabytes(name: str) -> int:
    return memory(name) // 10**6


if __name__ == "__main__":
    main()
