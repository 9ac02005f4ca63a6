"""Bad input in a hundred forms: one sentence that names the thing, exit 2, nothing written."""

import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from builders import write_photos
from similitude import cli
from similitude.recipes import RECIPES, dump_recipe

pytestmark = pytest.mark.slow

# What is typed in a folder with photos/ (48 images), classes/ (three), pair/ (train/ and test/ of
# other classes), run/ (trained), empty/, one/ (one image), x.npz, x.pack ...; then a part of the
# sentence.
TABLE = """
pretrain nowhere                                       | no folder or file nowhere
pretrain empty                                         | no image in empty
pretrain ''                                            | DATA is empty
pretrain ' '                                           | DATA is empty
pretrain one                                           | 1 sample
pretrain text.txt                                      | text.txt is a file
pretrain cut.npy                                       | cannot read cut.npy
pretrain cut.npz                                       | cannot read cut.npz
pretrain cut.tar                                       | cannot read cut.tar
pretrain cut.pack                                      | cut.pack
pretrain words.npy                                     | words.npy holds
pretrain flat.npy                                      | flat.npy has shape [12, 12]
pretrain picture.npy                                   | looks like one picture
pretrain bright.npy                                    | divide by 255
pretrain nan.npy                                       | floats from nan
pretrain deep.npy                                      | holds int32
pretrain nokey.npz                                     | nokey.npz holds no array called
pretrain labels.npz                                    | 12 images but 3 labels
pretrain hf:                                           | hf:
pretrain fashion-mnits                                 | did you mean fashion-mnist
pretrain damaged                                       | cannot be read
pretrain photos --method simclear                      | simclr
pretrain photos --method nowhere:Mine                  | nowhere
pretrain photos --method ''                            | method
pretrain photos --backbone resnet81                    | did you mean
pretrain photos --backbone timm:resnet18               | timm:resnet18
pretrain photos --backbone vit_tiny_patch16_224 --set image_size=30 | does not take images
pretrain photos --init nowhere.pth                     | nowhere.pth
pretrain photos --init text.txt                        | text.txt
pretrain photos --init photos                          | photos
pretrain photos --init run --backbone resnet50         | does not hold the backbone
pretrain photos --method cmc --init run                | cmc
pretrain photos --minutes 0                            | minutes
pretrain photos --minutes -3                           | minutes
pretrain photos --minutes nan                          | minutes
pretrain photos --epochs 0                             | --epochs
pretrain photos --epochs 1.5                           | --epochs
pretrain photos --epochs 3 --minutes 5                 | --epochs
pretrain photos --batch-size 1                         | --batch-size
pretrain photos --batch-size 64                        | fewer than one batch
pretrain photos --batch-size many                      | --batch-size
pretrain photos --micro-batch-size 0                   | --micro-batch-size
pretrain photos --recipe nowhere.yaml                  | nowhere.yaml
pretrain photos --recipe cifar10.simclear              | cifar10.simclr
pretrain photos --recipe text.txt                      | text.txt
pretrain photos --recipe list.yaml                     | list.yaml
pretrain photos --recipe alias.yaml                    | alias.yaml
pretrain photos --recipe typo.yaml                     | epoch
pretrain photos --set temperature=0.2                  | temperature
pretrain photos --set method.temprature=0.2            | temperature
pretrain photos --set method.temperature               | FIELD=VALUE
pretrain photos --set method.temperature=-1            | temperature
pretrain photos --set method.temperature=warm          | temperature
pretrain photos --set 'method.view.crop_scale=[2, 3]'  | crop_scale
pretrain photos --set image_size=0                     | image_size
pretrain photos --set 'mean=[0.5]'                     | mean
pretrain photos --set tile_size=500                    | as large as a tile
pretrain photos --set 'backbone.options={pretrained: true}' | pretrained
pretrain photos --set 'backbone.options={color: 3}'   | color
pretrain photos --seed -1                              | --seed
pretrain photos --out run                              | run
pretrain photos --out text.txt                         | text.txt
pretrain photos --out text.txt/below                   | text.txt
pretrain photos --resume                               | --out
pretrain photos --resume --out new                     | new
pretrain photos --resume --out run --epochs 9          | leave out
pretrain photos --devices 0                            | --devices
pretrain photos --num-nodes 0                          | --num-nodes
pretrain photos --nonsense                             | --nonsense
pretrain                                               | DATA
evaluate nowhere classes                               | nowhere
evaluate photos classes                                | photos
evaluate run nowhere                                   | no folder or file nowhere
evaluate run photos                                    | no labels to score against
evaluate run pair                                      | have no image in
evaluate run classes --protocol knnn                   | knn
evaluate run classes --protocol ''                     | protocol
evaluate run classes --draws 0                         | --draws
evaluate run photos --labels nowhere.csv               | nowhere.csv
evaluate run photos --labels text.txt                  | text.txt
evaluate run photos --labels quote.csv                 | line 2 cannot be read
evaluate run photos --labels other.csv                 | match no sample
evaluate run pair --labels other.csv                   | pair has two parts
evaluate run pair --labels nowhere.csv                 | nowhere.csv
evaluate run classes --against nowhere.pth             | nowhere.pth
embed run nowhere -o e.npz                             | no folder or file nowhere
embed run photos -o e.txt                              | e.txt
embed run photos -o text.txt/e.npz                     | text.txt
embed run photos                                       | --output
embed nowhere photos -o e.npz                          | no such run: nowhere
embed run nowhere.jpg -o e.npz                         | no folder or file nowhere.jpg
embed run '' -o e.npz                                  | DATA is empty
embed nowhere.pth photos -o e.npz                      | nowhere.pth
embed run photos -o e.npz --neighbors 3                | .parquet
embed run photos -o e.parquet --projection umpa        | did you mean umap
search run -o s.csv                                    | no file of embeddings
search nowhere.npz -o s.csv                            | nowhere.npz
search cut.npz -o s.csv                                | cut.npz
search nokey.npz -o s.csv                              | names [N]
search run photos --query nobody -o s.csv              | nobody
search run photos -o s.txt                             | .csv
duplicates run photos --threshold 2 -o d.csv           | threshold
outliers run photos -k 0 -o o.csv                      | --count
choose run photos --by typicl -o c.csv                 | did you mean typical
choose run photos -k 100 -o c.csv                      | 100 are to be chosen
choose run photos --labels nowhere.csv -o c.csv        | nowhere.csv
finetune run photos                                    | no labels
finetune run classes --label-fraction 0                | fraction
finetune run classes --label-fraction 2                | fraction
finetune run classes --from-layer 9                    | layer
finetune run classes --optimizer adamm                 | adamm
finetune run classes --out run                         | run
distill run photos                                     | run
distill nowhere photos                                 | nowhere
export run -o weights.pth                              | .safetensors
export run -o out --to onx                             | onnx
embed run photos -o e.parquet --patches                | .npz
export nowhere -o w.safetensors                        | nowhere
report nowhere                                         | nowhere
report photos                                          | photos
pack photos -o photos.zip                              | .pack
pack empty                                             | no image in empty
pack photos --size 0                                   | --size
views photos -o views.jpg                              | .png
views photos -o views.png --method simclear            | simclr
views nowhere -o views.png                             | nowhere
ablate simclr photos --vary temprature=1,2             | temperature
ablate simclr photos --vary method.temperature         | method.temperature
ablate photos --study nothing                          | nothing
ablate simclr photos                                   | --vary
ablate photos                                          | unknown method 'photos'
evolve photos --method simclr                          | --search
evolve photos --method simclear                        | simclr
evolve photos --search temprature=0.1..1               | temperature
evolve photos --search temperature=1..0.1              | LOW < HIGH
evolve nowhere --search temperature=0.1..1             | nowhere
prtrain photos                                         | pretrain
"""
ROWS = [tuple(part.strip() for part in line.split(" | ")) for line in TABLE.strip().splitlines()]
FAST = ["--epochs", "1", "--batch-size", "16", "--set", "precision=float32"]
FAST += ["--set", "memory_format=contiguous", "--set", "backbone.base_width=4"]


def run_command(*arguments: str) -> object:
    before, sys.argv = sys.argv, ["similitude", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_photos(folder / "photos", 48, classes=0)
    write_photos(folder / "classes", 24)
    write_photos(folder / "pair" / "train", 12)
    write_photos(folder / "pair" / "test", 6)
    for i, path in enumerate(sorted((folder / "pair" / "test").iterdir())):
        path.rename(path.with_name(f"other{i}"))
    write_photos(folder / "one", 1, classes=0)
    (folder / "empty").mkdir()
    (folder / "damaged").mkdir()
    for i in range(9):
        (folder / "damaged" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (folder / "text.txt").write_text("some words\n")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 12, 3), np.uint8)
    arrays = {
        "words": np.full((12, 8, 8), "a"),
        "flat": pixels[0, :, :, 0],
        "picture": pixels[0],
        "bright": pixels.astype(np.float32),
        "nan": np.full((12, 8, 8), np.nan, np.float32),
        "deep": pixels.astype(np.int32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "nokey.npz", pictures=pixels)
    np.savez(folder / "labels.npz", x=pixels, y=np.zeros(3, int))
    for suffix in ("npy", "npz", "tar", "pack"):
        (folder / f"cut.{suffix}").write_bytes(b"\x93NUMPY" if suffix == "npy" else b"PK\x03\x04xx")
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "alias.yaml").write_text("a: &a [1]\nb: [*a, *a]\n")
    (folder / "typo.yaml").write_text(
        dump_recipe(RECIPES["small.simclr"]()).replace("\nepochs:", "\nepoch:")
    )
    (folder / "quote.csv").write_text('file,label\n"a.png,x\nb.png,y\n')
    (folder / "other.csv").write_text("file,label\nnobody.png,x\n")
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert run_command("pretrain", "photos", "--out", "run", *FAST) in (None, 0)
    finally:
        os.chdir(here)
    return folder


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {str(p.relative_to(folder)): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize(("typed", "said"), ROWS, ids=[row[0] for row in ROWS])
def test_bad_input_is_one_sentence(typed, said, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    before = contents(place)
    code = run_command(*shlex.split(typed))
    printed = capsys.readouterr()
    assert code == 2, printed.out + printed.err
    assert "Traceback" not in printed.out + printed.err
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert said in " ".join(lines), printed.err
    assert len([line for line in lines if line.lower().startswith("error")]) <= 1
    assert contents(place) == before


def test_there_are_a_hundred():
    assert len(ROWS) >= 100
