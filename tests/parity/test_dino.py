"""DINO's loss with its center, head, clipping and parameter groups against its code."""

import pytest
import torch
from torch import Tensor, nn

from builders import LogitsHead
from similitude.images.views import ImageFacts, MultiView
from similitude.losses import self_distillation
from similitude.memory import Center
from similitude.method import Batch, Method, Progress, StepOutput
from similitude.methods.dino import DINO, DINOConfig
from similitude.nets import DINOHead, clip_each_


class Given(nn.Module):
    """A network whose output is what it was told, whatever it sees."""

    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.output = torch.zeros(0)

    def forward(self, x):
        return x.flatten(1)


@pytest.mark.golden("dino_loss")
def test_dino_loss(vectors, close):
    """Through the pure loss and the center."""
    schedule = vectors["teacher_temp_schedule"]
    center = Center(vectors["student_out"].shape[-1], vectors["center_momentum"]).double()
    for step, epoch in enumerate(vectors["epochs_of_steps"].tolist()):
        online, target = vectors["student_out"][step].requires_grad_(), vectors["teacher_out"][step]
        loss = self_distillation(
            list(online),
            list(target),
            center.value,
            online_temperature=vectors["student_temp"],
            target_temperature=schedule[epoch].item(),
        )
        center.update(target.flatten(0, 1))
        loss.backward()
        close(loss.item(), vectors["losses"][step].item())
        close(online.grad, vectors["grad_student"][step])
        close(center.value, vectors["center_after"][step][0])


@pytest.mark.golden("dino_loss")
def test_dino_steps(vectors, close):
    """Through the method: temperature of the epoch, loss, gradient and center."""
    classes = vectors["student_out"].shape[-1]
    config = DINOConfig(
        local_views=vectors["student_out"].shape[1] - 2,
        hidden_dim=2,
        projection_dim=2,
        num_prototypes=classes,
        temperature=vectors["student_temp"],
        target_temperature=vectors["teacher_temp"],
        warmup_target_temperature=vectors["warmup_teacher_temp"],
        warmup_target_temperature_epochs=vectors["warmup_teacher_temp_epochs"],
        center_decay=vectors["center_momentum"],
    )
    method = DINO(Given(), config).double()
    empty = torch.zeros(0)
    method.projector = LogitsHead(empty, classes).double()
    method.target_projector = LogitsHead(empty, classes).double()
    for step, epoch in enumerate(vectors["epochs_of_steps"].tolist()):
        progress = Progress(3 * epoch + 1, 3 * vectors["nepochs"], 3)
        online = vectors["student_out"][step].requires_grad_()
        method.projector.output = online.flatten(0, 1)
        method.target_projector.output = vectors["teacher_out"][step].flatten(0, 1)
        images = torch.zeros(online.shape[1], 1, 1, 1, dtype=torch.float64)
        batch = Batch([images] * len(online), torch.arange(len(images)))
        loss = method.training_loss(batch, progress).loss
        loss.backward()
        close(loss.item(), vectors["losses"][step].item())
        close(online.grad, vectors["grad_student"][step])
        close(method.center.value, vectors["center_after"][step][0])


@pytest.mark.golden("dino_loss")
def test_target_temperature(vectors, close):
    config = DINOConfig(
        target_temperature=vectors["teacher_temp"],
        warmup_target_temperature=vectors["warmup_teacher_temp"],
        warmup_target_temperature_epochs=vectors["warmup_teacher_temp_epochs"],
        num_prototypes=2,
        hidden_dim=2,
    )
    method = DINO(Given(), config)
    epochs = vectors["nepochs"]
    for step in (0, 2):  # of an epoch of three: it changes once per epoch
        temperatures = [
            method._target_temperature(Progress(3 * epoch + step, 3 * epochs, 3))
            for epoch in range(epochs)
        ]
        close(torch.tensor(temperatures, dtype=torch.float64), vectors["teacher_temp_schedule"])


@pytest.mark.golden("dino_clip")
def test_dino_clip(vectors, close):
    given = {n.partition(".")[2]: g for n, g in vectors.items() if n.startswith("grad_before.")}
    norms = torch.stack([grad.norm() for grad in given.values()])
    close(norms, vectors["norms_before"])
    parameters = {name: nn.Parameter(torch.zeros_like(grad)) for name, grad in given.items()}
    for name, parameter in parameters.items():
        parameter.grad = given[name].clone()
    last = vectors["freeze_last_layer"] > vectors["epoch"]
    assert last == vectors["last_layer_grad_is_none"]
    clip_each_(parameters.values(), vectors["clip"])
    for name, parameter in parameters.items():
        if not (last and "last_layer" in name):
            close(parameter.grad, vectors[f"grad_after.{name}"])


@pytest.mark.golden("dino_clip")
def test_dino_before_step(vectors, close):
    """The same through the method: the vectors' gradients on parameters of these shapes."""
    config = DINOConfig(
        num_prototypes=5,
        hidden_dim=2,
        projection_dim=3,
        clip_norm=vectors["clip"],
        freeze_last_layer_epochs=vectors["freeze_last_layer"],
    )
    method = DINO(Given(), config).double()
    given = {n.partition(".")[2]: g for n, g in vectors.items() if n.startswith("grad_before.")}
    method.given = nn.ParameterDict(
        {name: nn.Parameter(torch.zeros_like(g)) for name, g in given.items() if "last" not in name}
    )
    (last,) = (name for name in given if "last_layer" in name)
    places = {**method.given, last: method.projector.last_layer.weight_v}
    method.projector.last_layer.weight_v.data = torch.zeros_like(given[last])
    for name, parameter in places.items():
        parameter.grad = given[name].clone()
    method.before_step(Progress(10 * vectors["epoch"] + 3, 100, 10))
    for name, parameter in places.items():
        expected = vectors[f"grad_after.{name}"]
        if bool((expected == -12345).all()):
            assert parameter.grad is None
        else:
            close(parameter.grad, expected)


@pytest.mark.golden("dino_head")
def test_dino_head(vectors, close):
    params = {n.removeprefix("param."): v for n, v in vectors.items() if n.startswith("param.")}
    head = DINOHead(
        vectors["x"].shape[1],
        vectors["y"].shape[1],
        hidden_dim=len(params["mlp.0.bias"]),
        bottleneck_dim=params["last_layer.weight_v"].shape[1],
        layers=vectors["nlayers"],
        norm=bool(vectors["use_bn"]),
        norm_last_layer="last_layer.weight_g" not in vectors["trainable"],
    ).double()
    assert [n for n, _ in head.named_parameters()] == sorted(
        vectors["trainable"], key=[n for n, _ in head.named_parameters()].index
    )
    missing, left_over = head.load_state_dict(params, strict=False)
    assert all("running" in name or "tracked" in name for name in missing)
    assert not left_over
    close(head(vectors["x"]).detach(), vectors["y"])


class Toy(Method):
    """A method with the parameters of the vectors, by name and shape."""

    def __init__(self, shapes: dict[str, int]) -> None:
        super().__init__()
        for name, dims in shapes.items():
            place: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_parameter(last, nn.Parameter(torch.zeros(*[2] * dims)))

    def views(self, image: ImageFacts) -> MultiView:
        raise AssertionError

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        raise AssertionError


@pytest.mark.golden("dino_param_groups")
def test_dino_param_groups(vectors):
    """DINO takes every method's default groups; names of a ViT and of a BatchNorm."""
    assert DINO.param_groups is Method.param_groups
    assert not DINO.decays_all
    dims = {"cls_token": 3, "pos_embed": 3, "fc.weight": 2, "conv.weight": 4}
    names = vectors["regularised"] + vectors["not_regularised"]
    method = Toy({name: dims.get(name, 1) for name in names})
    of: dict[int, str] = {id(p): n for n, p in method.named_parameters()}

    def names_in(group: dict[str, list[Tensor]]) -> list[str]:
        return sorted(of[id(p)] for p in group["params"])

    decayed, free = method.param_groups()
    assert names_in(decayed) == sorted(vectors["regularised"])
    assert names_in(free) == sorted(vectors["not_regularised"])
    assert free["weight_decay"] == vectors["not_regularised_weight_decay"]
    assert "weight_decay" not in decayed
