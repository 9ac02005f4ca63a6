"""What a user types and sees: the whole path, and every documented mistake as one sentence."""

import json
import shlex
import shutil
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import similitude as sim
from builders import random_images, write_photos
from similitude import cli
from similitude.cli.console import Console
from similitude.methods import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs", "forked_exports")]

# Three steps; the arithmetic depends on the processor, so it is set.
FAST = ["--epochs", "1", "--batch-size", "16", "--set", "precision=float32"]
FAST += ["--set", "memory_format=contiguous"]
TINY = ["--set", "backbone.base_width=4", "--set", "image_size=16"]


@pytest.fixture
def similitude(monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["similitude", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run that trained on a folder of photos, once for this module."""
    folder = tmp_path_factory.mktemp("trained")
    write_photos(folder / "photos", 48)
    arguments = ["pretrain", folder / "photos", "--out", folder / "run", *FAST, *TINY]
    before, sys.argv = sys.argv, ["similitude", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        assert stop.code in (None, 0)
    finally:
        sys.argv = before
    return folder / "run"


@pytest.fixture
def photos(run_folder) -> Path:
    return run_folder.parent / "photos"


def test_version_is_that_of_the_installed_package(similitude):
    assert similitude("--version") == (0, f"similitude {version('similitude')}\n", "")


def test_pretrain_leaves_everything_that_was_promised(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert {
        "recipe.yaml",
        "metrics.csv",
        "health.json",
        "environment.json",
        "backbone.safetensors",
        "embedding.npz",
        "report.html",
        "log.txt",
        "views.png",
        "events",
        "checkpoints",
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]


def test_choices_are_explained_and_the_recipe_repeats_the_run(similitude, run_folder, photos):
    recipe = yaml.safe_load((run_folder / "recipe.yaml").read_text())
    assert recipe["reasons"]["image_size" if "image_size" in recipe["reasons"] else "method"]
    code, out, err = similitude(
        "pretrain", photos, "--recipe", run_folder / "recipe.yaml", "--out", "again"
    )
    assert code == 0, err
    first, second = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["method"]
        for path in (run_folder, Path("again"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_evaluate_prints_the_table_and_fills_the_report(similitude, run_folder, photos):
    code, out, err = similitude("evaluate", run_folder, photos, "--protocol", "knn,linear")
    assert code == 0, err
    assert all(row in out for row in ("raw pixels", "random backbone", "pretrained backbone"))
    table = json.loads((run_folder / "evaluation.json").read_text())
    assert table["columns"] == ["knn", "linear"]
    assert table["rows"][0]["scores"]["knn"]["mean"] >= 0.9  # the classes are colors
    assert "raw pixels" in (run_folder / "report.html").read_text()
    # one protocol more, later: what is there stays
    code, out, err = similitude("evaluate", run_folder, photos, "--protocol", "few")
    assert code == 0, err
    more = json.loads((run_folder / "evaluation.json").read_text())
    assert more["columns"][:2] == ["knn", "linear"]
    assert len(more["columns"]) > 2
    for before, after in zip(table["rows"], more["rows"], strict=True):
        assert before["scores"].items() <= after["scores"].items()
    assert "replaced" not in out
    some = write_photos(Path("some"), 40)
    code, out, err = similitude("evaluate", run_folder, some, "--protocol", "knn")
    assert code == 0, err
    assert "weights, images or labels have changed" in out
    assert json.loads((run_folder / "evaluation.json").read_text())["columns"] == ["knn"]


def test_published_weights_get_a_row_each(similitude, run_folder, photos, monkeypatch):
    start = sim.starts.open_start(run_folder)
    monkeypatch.setattr(sim.starts, "open_start", lambda name: replace(start, name=name))
    monkeypatch.setenv("COLUMNS", "80")
    names = ("efficientnet-lite0", "timm:resnet50.a1_in1k")
    given = [word for name in names for word in ("--against", name)]
    code, out, err = similitude("evaluate", run_folder, photos, "--protocol", "knn", *given)
    assert code == 0, err
    table = out[out.index("accuracy in %") : out.index("report: ")]
    assert max(map(len, table.splitlines())) <= 80
    places = [out.index(name) for name in ("random backbone", *names, "pretrained backbone")]
    assert places == sorted(places)
    # the same weights: nothing can be told apart
    assert "It is no better than efficientnet-lite0: kNN +0.0 ±" in out
    page = (run_folder / "report.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in names)
    code, _, err = similitude("evaluate", run_folder, photos, *given[:2], *given[:2])
    assert code == 2
    assert "two rows of the table would be called 'efficientnet-lite0'" in err


def test_labels_may_come_from_a_csv(similitude, run_folder, photos, tmp_path):
    flat = write_photos(tmp_path / "flat", 40, classes=0)
    rows = [f"{p.name},{'even' if i % 2 else 'odd'}" for i, p in enumerate(sorted(flat.iterdir()))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    code, out, err = similitude(
        "evaluate", run_folder, flat, "--labels", "labels.csv", "--protocol", "knn"
    )
    assert code == 0, err


def test_files_that_cannot_be_read_are_told_when_embedding(similitude, run_folder, tmp_path):
    flat = write_photos(tmp_path / "flat", 40, classes=0)
    (flat / "broken.png").write_bytes(b"no image")
    code, out, err = similitude("embed", run_folder, flat, "-o", "out.npz")
    assert code == 0, err
    assert f"1 of 41 files in {flat} cannot be read and are left out: broken.png" in out
    assert "40 embeddings" in out


def test_too_few_labels_are_counted(similitude, run_folder, tmp_path):
    flat = write_photos(tmp_path / "flat", 40, classes=0)
    names = sorted(p.name for p in flat.iterdir())
    (tmp_path / "few.csv").write_text(f"file,label\n{names[0]},a\n{names[1]},b\n")
    code, _, err = similitude("evaluate", run_folder, flat, "--labels", "few.csv")
    assert code == 2
    assert "2 labeled samples of 2 classes" in err


def test_embeddings_are_named_and_the_same_in_both_formats(similitude, run_folder, photos):
    import pyarrow.parquet as pq

    assert similitude("embed", run_folder, photos, "-o", "out.npz")[0] == 0
    assert similitude("embed", run_folder, photos, "-o", "out.parquet")[0] == 0
    arrays, table = np.load("out.npz"), pq.read_table("out.parquet")
    assert arrays["embeddings"].shape == (48, 32)
    assert arrays["names"][0] == "class0/photo000.png"
    assert table["file"].to_pylist() == arrays["names"].tolist()
    np.testing.assert_array_equal(np.stack(table["embedding"].to_pylist()), arrays["embeddings"])


def test_embeddings_answer_questions(similitude, run_folder, photos):
    assert similitude("embed", run_folder, photos, "-o", "e.parquet")[0] == 0
    for command in (
        ["search", "e.parquet", "--query", "class0/photo000.png", "-k", "3"],
        ["duplicates", "e.parquet", "--threshold", "0.999"],
        ["outliers", "e.parquet", "-k", "5"],
        ["choose", "e.parquet", "-k", "6", "--by", "diverse"],
        ["choose", run_folder, photos, "-k", "6"],
    ):
        name = command[0]
        where = [] if command[2] == photos else ["--pictures", photos]
        code, out, err = similitude(*command, *where, "-o", f"{name}.csv")
        assert code == 0, err
        assert f": {name}.csv" in out
        assert f"page: {name}.html" in out
        header, *rows = Path(f"{name}.csv").read_text().splitlines()
        assert header.count(",") >= 2
        page = Path(f"{name}.html").read_text()
        assert page.count('class="thumb') == len(rows) + (name == "search")
        assert "<script src" not in page


def test_the_printed_snippet_gives_identical_outputs(similitude, run_folder):
    from similitude.runs.run import Run

    code, out, err = similitude("export", run_folder, "-o", "backbone.safetensors")
    assert code == 0, err
    names: dict = {}
    exec(out, names)
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(names["backbone"](images), Run(run_folder).backbone(images))


def test_an_export_is_a_folder_and_tells_how_far_it_is_from_the_run(similitude, run_folder):
    code, out, err = similitude("export", run_folder, "--to", "torch-export", "-o", "exported")
    assert code == 0, err
    assert sorted(path.name for path in Path("exported").iterdir()) == ["README.md", "model.pt2"]
    assert "# Largest difference to the run's features of the same input: " in out
    compile(out, "printed", "exec")  # Python that can be run as it is


def test_patches_are_one_vector_for_each_place(similitude, run_folder, photos):
    code, out, err = similitude("embed", run_folder, photos, "-o", "out.npz", "--patches")
    assert code == 0, err
    assert "48 embeddings of 2 x 2 places, 32 numbers each: out.npz" in out
    assert np.load("out.npz")["embeddings"].shape == (48, 2, 2, 32)


def test_two_runs_give_a_comparison(similitude, run_folder):
    shutil.copytree(run_folder, "other")
    code, out, err = similitude("report", run_folder, "other", "-o", "both.html")
    assert code == 0, err
    assert Path("both.html").stat().st_size > 100_000


def test_methods_prints_the_measured_table_in_80_columns(similitude, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = similitude("methods")
    assert code == 0, err
    assert all(word in out for word in ("nega-", "projec-", "symme-", "predic-"))
    assert all(f" {name} " in out for name in METHODS)
    assert "…" not in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert rows["simsiam"].count("yes") == 4
    assert rows["byol"].count("yes") == 5


def test_views_draws_a_contact_sheet(similitude, photos):
    code, out, err = similitude("views", photos, "--method", "byol", "-o", "views.png")
    assert code == 0, err
    assert Image.open("views.png").width > 400


def test_a_pack_trains_to_the_weights_of_the_folder(similitude, photos, run_folder):
    code, out, err = similitude("pack", photos, "-o", "x.pack")
    assert code == 0, err
    assert "packed: x.pack" in out
    assert similitude("pretrain", "x.pack", "--out", "packed", *FAST, *TINY)[0] == 0
    ours = load_file("packed/backbone.safetensors")
    theirs = load_file(run_folder / "backbone.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_any_mix_of_images_trains_and_damaged_files_are_listed(similitude, tmp_path):
    folder = write_photos(tmp_path / "mixed", 40)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (30, 50), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "class0" / "grey.jpg")
    Image.fromarray(grey).convert("P").save(folder / "class0" / "palette.png")
    Image.fromarray(grey).convert("RGBA").save(folder / "class1" / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(folder / "class1" / "deep.png")
    (folder / "class1" / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    code, out, err = similitude("pretrain", folder, "--out", "run", *FAST, *TINY)
    assert code == 0, err
    assert "class1/broken.jpg" in Path("run/unreadable.txt").read_text()
    assert "1 unreadable" in out


def check(result, *words):
    code, out, err = result
    assert code == 2, (out, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1, "one sentence"
    for word in words:
        assert word in err, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "nowhere"], ["nowhere"]),
        (["pretrain", "empty"], ["empty", ".jpg"]),
        (["pretrain", "photos", "--batch-size", "64"], ["48", "64", "--batch-size"]),
        (["pretrain", "photos", "--method", "simclear"], ["simclear", "simclr"]),
        (["pretrain", "photos", "--backbone", "resnet81"], ["resnet81", "resnet18"]),
        (["pretrain", "photos", "--recipe", "cifar10.simcrl"], ["cifar10.simclr"]),
        (["pretrain", "photos", "--set", "method.temprature=1"], ["temperature"]),
        (["pretrain", "photos", "--set", "method.temperature=-1"], ["greater than 0"]),
        (["pretrain", "photos", "--out", "photos"], ["photos", "not empty", "not a run"]),
        (["pretrain", "photos", "--backbone", "vit_tiny_patch16_224"], ["image_size=224"]),
        (["pretrain", "photos", "--resume"], ["--out"]),
        (["pretrain", "photos", "--resume", "--out", "new"], ["no folder new"]),
        (["evaluate", "nowhere", "photos"], ["no such run", "nowhere"]),
        (["evaluate", "photos", "photos"], ["photos", "not a run"]),
        (["evaluate", "RUN", "flat"], ["labels", "--labels"]),
        (["evaluate", "RUN", "photos", "--protocol", "knnn"], ["knnn", "knn"]),
        (["evaluate", "RUN", "flat", "--labels", "wrong.csv"], ["wrong.csv"]),
        (["embed", "RUN", "photos", "-o", "out.csv"], ["out.csv", ".npz", ".parquet"]),
        (["export", "RUN", "-o", "out.pt"], ["out.pt", ".safetensors"]),
        (["report", "photos"], ["photos"]),
        (["views", "photos", "-o", "views.jpg"], ["views.jpg", ".png"]),
        (["pretrain", ""], ["empty"]),
        (["pretrain", "photos", "--out", ""], ["empty path"]),
        (["pretrain", "photos", "--out", "wrong.csv/run"], ["cannot write wrong.csv/run"]),
        (["pretrain", "photos", "--out", "dangling"], ["cannot write dangling", "link to nothing"]),
        (["pretrain", "photos", "--out", "dangling/run"], ["cannot write dangling/run"]),
        (["pretrain", "photos", "--out", "x" * 300], ["write xxx", "too long"]),
        (["finetune", "RUN", "photos", "--out", "wrong.csv/run"], ["cannot write wrong.csv/run"]),
        (["embed", "RUN", "photos", "-o", "x" * 245 + ".npz"], ["cannot write xxx", "too long"]),
        (["embed", "RUN", "photos", "-o", "wrong.csv/x.npz"], ["cannot write wrong.csv/x.npz"]),
        (["pack", "photos", "-o", "dangling/x.pack"], ["cannot write dangling/x.pack"]),
        (["views", "photos", "-o", "wrong.csv/x.png"], ["cannot write wrong.csv/x.png"]),
        (["export", "RUN", "-o", "wrong.csv/x.safetensors"], ["cannot write wrong.csv/x"]),
        (["report", "RUN", "-o", "wrong.csv/x.html"], ["cannot write wrong.csv/x.html"]),
        (["report", "RUN", "-o", "theirs.html"], ["theirs.json is there already"]),
        (["evaluate", "~no-such-user/run", "photos"], ["~no-such-user/run", "home"]),
        (
            ["ablate", "simsiam", "photos", "--vary", "epochs=1,2", "--out", "wrong.csv/a"],
            ["cannot write wrong.csv/a"],
        ),
        (["ablate"], ["--vary", "--study"]),
        (["ablate", "simsiam", "--vary", "stop_gradient=true,false"], ["METHOD", "DATA"]),
        (["ablate", "simsiam", "photos", "--vary", "stop_gradient"], ["FIELD=A,B,C"]),
        (["ablate", "simsiam", "photos", "--vary", "stop_gradent=1,0"], ["stop_gradient"]),
        (["ablate", "simsiam", "nowhere", "--vary", "stop_gradient=true,false"], ["nowhere"]),
        (["ablate", "--study", "simsiam_stop"], ["simsiam_stop_gradient"]),
        (["ablate", "byol", "photos", "--study", "byol_target"], ["byol", "photos", "DATA"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value else None,
)
def test_every_mistake_is_one_sentence_and_exit_code_2(
    similitude, run_folder, photos, tmp_path, arguments, words
):
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no images here")
    write_photos(tmp_path / "flat", 20, classes=0)
    (tmp_path / "wrong.csv").write_text("file,label\nmissing.png,cat\n")
    (tmp_path / "theirs.json").write_text("{}")
    (tmp_path / "dangling").symlink_to("nothing")
    check(similitude(*(run_folder if a == "RUN" else a for a in arguments)), *words)


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(
    similitude, run_folder, photos, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(photos, tmp_path / "home" / "photos")
    assert similitude("pretrain", "~/photos", "--out=~/run", *FAST, *TINY)[0] == 0
    for command in (
        ["evaluate", "~/run", "~/photos", "--protocol", "knn", "--against", "~/run"],
        ["embed", "~/run", "~/photos", "-o", "~/x.npz"],
        ["export", "~/run", "-o", "~/x.safetensors"],
        ["report", "~/run", "-o", "~/x.html"],
        ["views", "~/photos", "-o", "~/x.png"],
        ["pack", "~/photos", "-o", "~/x.pack"],
        ["finetune", "~/run", "~/photos", "--epochs", "1", "--out", "~/classifier"],
        ["pretrain", "~/photos", "--recipe", "~/run/recipe.yaml", "--out", "~/run", "--overwrite"],
    ):
        code, out, err = similitude(*command)
        assert code == 0, err
    assert sim.load("~/run").path == tmp_path / "home" / "run"
    made = {path.name for path in (tmp_path / "home").iterdir()}
    assert {"run", "classifier", *(f"x.{s}" for s in ("npz", "html", "json", "png", "pack"))} < made
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_what_nobody_named_is_replaced_only_if_it_is_our_own(similitude, run_folder, photos):
    shutil.copytree(photos, "pictures")
    Path("pictures.pack").write_text("mine")
    check(similitude("pack", "pictures"), "pictures.pack is no whole pack")
    Path("pictures.pack").unlink()
    assert similitude("pack", "pictures")[0] == 0
    assert "replaces pictures.pack" in similitude("pack", "pictures")[1]
    Path("page.json").write_text('{"mine": 1}')
    check(similitude("report", run_folder, "-o", "page.html"), "page.json is there already")
    Path("page.json").unlink()
    assert similitude("report", run_folder, "-o", "page.html")[0] == 0
    assert similitude("report", run_folder, "-o", "page.html")[0] == 0


def test_too_many_unreadable_files_stop_the_run(similitude, tmp_path):
    folder = write_photos(tmp_path / "mixed", 20)
    for i in range(5):
        (folder / "class0" / f"broken{i}.png").write_bytes(b"not an image")
    check(similitude("pretrain", folder, *FAST), "5", "25")
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_another_backbone_is_told(similitude, run_folder, photos, tmp_path):
    path = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["recipe"]["backbone"]["base_width"] = 8
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "other" / "checkpoints" / "last.ckpt")
    check(similitude("embed", "other", photos, "-o", "out.npz"), "another network", "resnet18")
    assert not Path("out.npz").exists()


def test_a_damaged_checkpoint_is_told(similitude, run_folder, photos, tmp_path):
    whole = (run_folder / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut" / "checkpoints").mkdir(parents=True)
    (tmp_path / "cut" / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    check(similitude("embed", "cut", photos, "-o", "out.npz"), "damaged")


def test_a_full_disk_loses_nothing(similitude, run_folder, photos, tmp_path, monkeypatch):
    (tmp_path / "out.npz").write_bytes(b"older")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("similitude.files.writing.os.fsync", full)
    check(similitude("embed", run_folder, photos, "-o", "out.npz"), "disk is full", "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".npz")] == ["out.npz"]


@pytest.fixture
def pressing(monkeypatch):
    """While it trains under this name, a command gets a signal at its first step."""
    shown = Console.progress

    @contextmanager
    def press(number, name="training"):
        def progress(self, what, done, total, note=""):
            shown(self, what, done, total, note)
            if what.startswith(name) and done == 1:
                signal.raise_signal(number)

        with monkeypatch.context() as patch:
            patch.setattr(Console, "progress", progress)
            yield

    return press


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "exit_code"), SIGNALS)
def test_a_training_is_saved_and_the_printed_command_goes_on(
    similitude, run_folder, photos, tmp_path, pressing, number, exit_code
):
    """Of every kind of training, in folders whose names a shell would take apart."""
    data = shutil.copytree(photos, tmp_path / "my photos; $HOME")
    few = ["--epochs", "2", "--batch-size", "16"]
    runs = {
        "pretrain": [data, "--out", "a run", *FAST, *TINY],
        "finetune": [run_folder, data, "--out", "a class", *few, "--from-scratch"],
        "distill": ["a class", data, "--out", "a student", *few],
    }
    for command, arguments in runs.items():
        with pressing(number):
            code, out, err = similitude(command, *arguments)
        assert code == exit_code, err
        program, *words = shlex.split(out.partition("goes on: ")[2].splitlines()[0])
        assert program == "similitude"
        code, out, err = similitude(*words)
        assert code == 0, err
        assert "stopped" not in out


def test_auto_resume_refuses_values_that_the_run_was_not_begun_with(similitude, photos, pressing):
    begin = ["pretrain", photos, "--out", "run", "--auto-resume", *FAST, *TINY]
    with pressing(signal.SIGTERM):
        code, out, err = similitude(*begin)
    assert code == 143, err
    check(similitude(*begin, "--seed", "7"), "another value of seed", "another --out")
    code, out, err = similitude(*begin)
    assert code == 0, err
    assert "stopped" not in out


ABLATE = ["--epochs", "1", "--seeds", "1", *TINY, *FAST[4:], "--set", "batch_size=16"]


@pytest.mark.parametrize(("number", "exit_code"), SIGNALS)
def test_ablate_prints_one_table_and_goes_on_where_it_was(
    similitude, photos, pressing, number, exit_code
):
    command = ["ablate", "simsiam", photos, "--vary", "stop_gradient=true,false", *ABLATE]
    with pressing(number, "2/2"):
        code, out, err = similitude(*command)
    assert code == exit_code, err
    assert "the same command goes on" in out
    code, out, err = similitude(*command)
    assert code == 0, err
    assert all(word in out for word in ("kNN", "linear", "rank", "std", "loss", "verdict", "min"))
    folder = Path("ablations/photos-simsiam-stop_gradient")
    assert str(folder / "ablation.html") in out
    for name in ("ablation.html", "ablation.json", "ablation.csv"):
        assert (folder / name).stat().st_size > 0
    code, out, err = similitude("report", *sorted(folder.glob("*/seed-0")), "-o", "both.html")
    assert code == 0, err
    check(similitude(*command, "--epochs", "2"), "differs in epochs", "--out")


def test_ablate_lists_its_studies(similitude):
    code, out, err = similitude("ablate", "--list")
    assert code == 0, err
    assert "simsiam_stop_gradient" in out
    assert "moco_v3_patches" in out


def test_help_names_every_command(similitude):
    code, out, err = similitude("--help")
    assert code == 0
    for command in (
        "pretrain",
        "evaluate",
        "embed",
        "search",
        "duplicates",
        "outliers",
        "choose",
        "report",
        "methods",
        "views",
        "export",
        "ablate",
        "evolve",
    ):
        assert command in out


def test_an_array_trains_from_python(tmp_path, monkeypatch):
    import similitude as sim

    monkeypatch.chdir(tmp_path)
    pixels = random_images(32).pixels.permute(0, 2, 3, 1).numpy()
    run = sim.pretrain(
        pixels,
        method="byol",
        epochs=1,
        batch_size=16,
        overrides=["backbone.base_width=4", "method.hidden_dim=16"],
    )
    assert run is not None
    assert run.path == Path("runs/array-byol") or run.path.parent == Path("runs")
    assert run.embed(pixels).x.shape == (32, 32)
    assert run.verdict.state in ("healthy", "doubtful", "collapsed")
