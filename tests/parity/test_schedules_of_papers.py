"""Learning rates and averages of the papers, written with the four schedules."""

import pytest
import torch

from similitude.schedules import cosine, linear, step_decay, warmup_cosine


def sequence(schedule, length):
    return torch.tensor([schedule(i / length) for i in range(length)], dtype=torch.float64)


@pytest.mark.golden("schedules")
def test_moco_per_epoch(vectors, close):
    lr, epochs = vectors["hp_lr"], vectors["hp_epochs"]
    milestones = [epoch / epochs for epoch in vectors["hp_milestones"].tolist()]
    close(sequence(lambda f: cosine(lr, 0.0, f), epochs), vectors["moco_cos"])
    close(sequence(lambda f: step_decay(lr, milestones, 0.1, f), epochs), vectors["moco_step"])
    demo = sequence(lambda f: cosine(lr, 0.0, f + 1 / epochs), epochs)  # counts epochs from 1
    close(demo, vectors["moco_cifar_demo_epochs_from_1"])


@pytest.mark.golden("schedules")
def test_simsiam_per_epoch(vectors, close):
    lr, epochs = vectors["hp_lr"], vectors["hp_epochs"]
    close(sequence(lambda f: cosine(lr, 0.0, f), epochs), vectors["simsiam_encoder"])
    close(sequence(lambda f: lr, epochs), vectors["simsiam_predictor_fixed"])


@pytest.mark.golden("schedules")
def test_simclr_per_step(vectors, close):
    lr, batch, total = vectors["hp_lr"], vectors["hp_bs"], vectors["simclr_total_steps"]
    warmup = round(vectors["hp_warm"] * vectors["hp_num_examples"] // batch) / total
    for name, peak in {"linear": lr * batch / 256, "sqrt": lr * batch**0.5}.items():
        rates = sequence(lambda f, peak=peak: warmup_cosine(peak, 0.0, warmup, f), total)
        close(rates, vectors[f"simclr_lr_{name}"])


@pytest.mark.golden("schedules")
def test_moco_v3_per_step(vectors, close):
    steps = vectors["hp_epochs"] * vectors["hp_ipe"]
    warmup = vectors["hp_warm"] / vectors["hp_epochs"]
    rates = sequence(lambda f: warmup_cosine(vectors["hp_lr"], 0.0, warmup, f), steps)
    close(rates, vectors["mocov3_lr"])
    decays = sequence(lambda f: cosine(vectors["hp_m"], 1.0, f), steps)
    close(decays, vectors["mocov3_momentum"])


def line_then_cosine(vectors, start, end):
    """The rates of DINO's and SwAV's code: the last step of the warm-up has the peak already."""
    peak, warmup = vectors["hp_lr"], vectors["hp_warm"] * vectors["hp_ipe"]
    rest = vectors["hp_epochs"] * vectors["hp_ipe"] - warmup
    line = [linear(start, peak, i / (warmup - 1)) for i in range(warmup)]
    return torch.cat(
        [torch.tensor(line, dtype=torch.float64), sequence(lambda f: cosine(peak, end, f), rest)]
    )


@pytest.mark.golden("schedules")
def test_dino_per_step(vectors, close):
    steps = vectors["hp_epochs"] * vectors["hp_ipe"]
    close(line_then_cosine(vectors, 0.0, vectors["hp_min_lr"]), vectors["dino_lr"])
    close(sequence(lambda f: cosine(0.04, 0.4, f), steps), vectors["dino_weight_decay"])
    close(sequence(lambda f: cosine(vectors["hp_m"], 1.0, f), steps), vectors["dino_momentum"])


@pytest.mark.golden("schedules")
def test_swav_per_step(vectors, close):
    start, end = vectors["hp_start_warmup"], vectors["hp_final_lr"]
    close(line_then_cosine(vectors, start, end), vectors["swav_lr"])
