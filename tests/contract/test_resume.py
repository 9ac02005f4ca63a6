"""Stop anywhere and go on: the same bits as a run that never stopped, for every method."""

import csv

import pytest
import torch

from builders import IMAGE_METHODS, StopAt, random_images, same, small_recipe
from similitude.api import pretrain
from similitude.errors import UserError
from similitude.listener import Silent
from similitude.runs.checkpoint import load_checkpoint
from similitude.training.pretrain import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

CPU = torch.device("cpu")


def last(folder):
    return load_checkpoint(folder / "checkpoints" / "last.ckpt")


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


FAST = {"precision": "bfloat16", "memory_format": "channels_last", "micro_batch_size": 8}
RUNS = [(name, {}) for name in IMAGE_METHODS] + [("byol", FAST)]


@pytest.mark.parametrize(("name", "changes"), RUNS)
def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(name, changes, tmp_path):
    images = random_images(44)  # two batches of 16 in an epoch, the rest is left out
    recipe = small_recipe(name, **changes)
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    stop = int(torch.randint(1, 5, (), generator=generator))  # of 6 steps; also mid-epoch
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    assert train(images, "x", recipe, whole, device=CPU, listener=Silent()) is not None
    stopped = train(images, "x", recipe, parts, device=CPU, listener=StopAt(stop))
    assert stopped is None
    halfway = last(parts)
    assert 0 < halfway.step < 6
    torch.manual_seed(123)  # another process has another random state
    resumed = train(images, "x", recipe, parts, device=CPU, listener=Silent(), checkpoint=halfway)
    assert resumed is not None

    assert same(last(whole).method, last(parts).method)
    assert same(last(whole).optimizer, last(parts).optimizer)
    assert torch.equal(last(whole).random_state, last(parts).random_state)
    assert last(whole).step == last(parts).step == 6
    assert losses(whole) == losses(parts)


def test_rows_beyond_the_checkpoint_are_dropped_on_resume(tmp_path):
    """A run killed after its checkpoint has written rows that the resumed run writes again."""
    images, recipe = random_images(44), small_recipe("simsiam")
    folder = tmp_path / "run"
    assert train(images, "x", recipe, folder, device=CPU, listener=StopAt(3)) is None
    halfway = last(folder)
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,2.5,99\n")
    train(images, "x", recipe, folder, device=CPU, listener=Silent(), checkpoint=halfway)
    steps = [int(float(step)) for step, _ in losses(folder)]
    assert steps == sorted(set(steps)) == list(range(7))
    assert all(loss != "99" for _, loss in losses(folder))


def test_the_seed_decides_the_run(tmp_path):
    images = random_images(32)
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = small_recipe("simclr", epochs=1, seed=seed)
        train(images, "x", recipe, tmp_path / folder, device=CPU, listener=Silent())
    a, b, c = (last(tmp_path / folder).method for folder in "abc")
    assert same(a, b)
    assert not same(a, c)


def test_a_finished_run_says_that_nothing_is_left(tmp_path):
    class Heard(Silent):
        def say(self, sentence):
            sentences.append(sentence)

    images, recipe, sentences = random_images(44), small_recipe("simclr"), []
    for checkpoint in (None, "last"):
        checkpoint = checkpoint and last(tmp_path)
        train(images, "x", recipe, tmp_path, device=CPU, listener=Heard(), checkpoint=checkpoint)
        told = [s for s in sentences if "was finished already, after 6 steps" in s]
        assert len(told) == (checkpoint is not None)
        assert sum(s.startswith("trained 6 steps in") for s in sentences) == 1


def test_a_folder_that_is_not_there_cannot_be_resumed(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nope to resume"):
        pretrain(random_images(44), out=tmp_path / "nope", resume=True)
    assert not (tmp_path / "nope").exists()
