import time

import pytest
import torch
from torch import nn

from builders import random_images, small_recipe
from similitude import pretrain
from similitude.images.views import ImageFacts, ImageView, ImageViewConfig, MultiView
from similitude.training.profiling import STAGES, STEPS, WARM_UP, Limits, Profile

N, D, P = 16, 8, 4


def profiled(step, method=None, **options):
    profile = Profile(method or nn.Module(), torch.device("cpu"), **options)
    with profile.counting():
        step(profile)
    for _ in range(WARM_UP + STEPS):
        assert not profile.is_finished
        with profile.step():
            step(profile)
    assert profile.is_finished
    return profile


def test_a_run_too_short_to_time_says_so():
    profile = Profile(torch.nn.Linear(2, 2), torch.device("cpu"))
    profile.steps = WARM_UP
    assert "took 5 steps" in profile.table(Limits(1.0, 1.0))


def test_the_work_of_threads_is_counted():
    size = 128  # views so large are made in threads
    canvases = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    views = MultiView(
        ImageView(ImageViewConfig(blur=1.0), ImageFacts(size, (0.5,) * 3, (0.5,) * 3))
    )

    def step(profile):
        with profile.stage("views"):
            views(canvases, torch.arange(4), seed=0, epoch=0)

    counted = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        counted.append(profiled(step).work["views"].bytes)
    # chunks of other lengths share other constants
    assert counted[0] > 0
    assert counted[0] == pytest.approx(counted[1], rel=0.1)


def test_operations_and_bytes_of_linear_networks():
    method = nn.ModuleDict({"backbone": nn.Linear(D, P), "target_backbone": nn.Linear(D, P)})
    x = torch.ones(N, D)

    def step(profile):
        loss = method["backbone"](x).sum()
        with torch.no_grad():
            method["target_backbone"](x)
        with profile.stage("networks, backward"):
            loss.backward()

    work = profiled(step, method).work
    assert work["networks, forward"].flops == 2 * N * D * P
    assert work["target networks"].flops == 2 * N * D * P
    assert work["networks, backward"].flops == 2 * N * D * P  # the images need no gradient
    assert work["target networks"].bytes == 4 * (N * D + D * P + P + N * P)
    assert work["optimizer"].flops == work["optimizer"].bytes == 0


def test_time_counts_for_the_innermost_stage_and_nothing_is_lost():
    def step(profile):
        with profile.stage("views"):
            time.sleep(0.002)
            with profile.stage("optimizer"):
                time.sleep(0.001)

    start = time.perf_counter()
    work = profiled(step).work
    elapsed = time.perf_counter() - start
    assert work["views"].seconds >= 0.002 * STEPS
    assert 0.001 * STEPS <= work["optimizer"].seconds < work["views"].seconds
    assert 0.003 * STEPS <= sum(w.seconds for w in work.values()) < elapsed


def test_waiting_between_steps_is_told_apart_from_records():
    waited = [0.0]

    def step(profile):
        time.sleep(0.001)
        waited[0] += 0.0005

    work = profiled(step, waited=lambda: waited[0]).work
    assert work["waiting for images"].seconds == pytest.approx(0.0005 * STEPS)


def test_the_table_gives_shares_and_floors():
    profile = Profile(nn.Module(), torch.device("cpu"))
    profile.steps = WARM_UP + STEPS
    profile.work["networks, forward"].seconds = 0.03 * STEPS
    profile.work["networks, backward"].seconds = 0.06 * STEPS
    profile.work["views"].seconds = 0.01 * STEPS
    profile.work["networks, forward"].flops = 2e9
    profile.work["networks, forward"].bytes = 1e6
    profile.work["views"].bytes = 4e6
    table = profile.table(Limits(flops=1e12, bytes=1e9))
    rows = {line[:24].strip(): line[24:].split() for line in table.splitlines()[1:-1]}
    assert rows["networks, forward"] == ["30.00", "30.0%", "2.00", "0.00", "2.00"]
    assert rows["views"] == ["10.00", "10.0%", "0.00", "0.00", "4.00"]
    assert rows["a whole step"] == ["100.00", "100.0%"]
    assert "optimizer" not in rows
    assert "outside the networks 10.0%" in table


@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_a_profiled_run_has_the_weights_of_one_that_is_not(name, tmp_path):
    images = random_images(16 * 40)
    fixed = {"precision": "float32", "memory_format": "contiguous"}  # else a rule chooses
    recipe = small_recipe(name, batch_size=16, epochs=1, **fixed)
    runs = [
        pretrain(images, recipe=recipe, out=tmp_path / str(profile), profile=profile, report=False)
        for profile in (True, False)
    ]
    ours, theirs = (run.checkpoint.method for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    text = (runs[0].path / "profile.txt").read_text()
    assert [stage for stage in STAGES if stage in text][:3] == list(STAGES[:3])
    assert not (runs[1].path / "profile.txt").exists()


class Heard:
    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)

    def progress(self, what, done, total, note=""):
        if what == "training":
            self.sentences.append("training")


def test_a_run_too_short_for_a_profile_is_told_before_it_trains(tmp_path):
    fixed = {"precision": "float32", "memory_format": "contiguous"}
    recipe = small_recipe("simclr", batch_size=16, epochs=1, **fixed)
    heard = Heard()
    run = pretrain(
        random_images(16 * WARM_UP),
        recipe=recipe,
        out=tmp_path / "run",
        profile=True,
        report=False,
        listener=heard,
    )
    (told,) = (s for s in heard.sentences if "--profile needs more than 5 steps" in s)
    assert "this run has 5 left" in told
    assert heard.sentences.index(told) < heard.sentences.index("training")
    assert not (run.path / "profile.txt").exists()
