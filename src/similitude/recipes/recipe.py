"""A recipe: everything that determines a run, as one frozen value, and its YAML form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from similitude.errors import UserError, did_you_mean
from similitude.files.reading import parse_yaml, read_yaml
from similitude.method import MethodConfig
from similitude.methods import make_config
from similitude.modalities import DEFAULT_KIND, KINDS, modality
from similitude.nets.precision import Arithmetic
from similitude.sample import Config, DataConfig, NetworkConfig

Share = Annotated[float, Field(ge=0, le=1)]
ModelT = TypeVar("ModelT", bound=BaseModel)
MANY = 32  # values of a list that are not written out for people


class OptimizerConfig(Config):
    """How parameters move. The effective rate is ``base_lr * batch_size / 256``."""

    name: Literal["sgd", "lars", "larc", "adamw", "adam"] = "sgd"
    # Where LARS puts the rate: "outside" the momentum buffer as BYOL's code, inside it ("classic")
    # as SimCLR's. They differ only while the rate changes.
    lars_momentum: Literal["outside", "classic", "popular"] = "outside"
    base_lr: float = Field(gt=0)  # per 256 images
    weight_decay: float = Field(default=1e-4, ge=0)
    # The weight decay moves to this value along a cosine, as in DINO; None keeps it.
    final_weight_decay: float | None = Field(default=None, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)  # of sgd, lars and larc
    warmup_epochs: float = Field(default=0, ge=0)
    warmup_start: Share = 0.0  # share of the peak at which the warm-up begins
    final_lr: Share = 0.0  # share of the peak at which the cosine ends
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_milestones: tuple[Share, ...] = (0.6, 0.8)  # fractions of the run, for "step"
    step_factor: float = Field(default=0.1, gt=0, le=1)
    per: Literal["step", "epoch"] = "step"  # when the rate changes; MoCo and SimSiam: per epoch


class InitConfig(Config):
    """The published weights a run starts from, and how it stays near them."""

    name: str  # what the user named: a file, a run, timm:NAME, efficientnet-lite0
    fingerprint: str  # of the weights
    frozen: Share = 0.0  # of the network's depth, from the input on, that stays as it is
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # rate of a layer over the next one's
    head_warmup: Share = 0.0  # of the run, at its beginning, in which heads move alone
    average: Share = 0.0  # of the start's weights in those that are kept
    # "batch": GroupNorm layers become BatchNorm, which some methods are made for.
    norm: Literal["own", "batch"] = "own"


class Recipe(Config):
    """Everything that determines a run besides the images themselves."""

    method: SerializeAsAny[MethodConfig]
    data: SerializeAsAny[DataConfig] = Field(default=None, validate_default=True)  # type: ignore[assignment]
    backbone: SerializeAsAny[NetworkConfig] = Field(default=None, validate_default=True)  # type: ignore[assignment]
    optimizer: OptimizerConfig
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)  # global
    # Images per forward pass of the backbone; the loss still sees the whole batch, exactly.
    micro_batch_size: int | None = Field(default=None, ge=1)
    # Of the backbone's arithmetic; "auto" is settled by a rule on network and processor.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    # PyTorch's fused kernel, or products and softmax, which are faster in bfloat16 on some CPUs.
    attention: Literal["auto", "fused", "plain"] = "auto"
    # Blocks of the backbone keep their inputs alone, and run again in the backward pass.
    activation_checkpointing: bool = False
    # Whether torch.compile makes kernels for the backbone; "auto" is no.
    compile: bool | Literal["auto"] = "auto"
    init: InitConfig | None = None  # None: random weights
    seed: int = Field(default=0, ge=0)
    # Why each automatic choice was made: field -> sentence. No effect on the run.
    reasons: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _compiled_or_computed_twice(self) -> "Recipe":
        if self.compile is True and self.activation_checkpointing:
            raise ValueError(
                "torch.compile does not take activation_checkpointing here: set one of them to "
                "false"
            )
        return self

    def with_value(self, path: str, value: Any) -> "Recipe":
        """The recipe with another value at a path such as ``optimizer.base_lr``."""
        return _with_value(self, path.split("."), value)

    @property
    def facts(self) -> Any:
        """The facts that views and evaluation need."""
        return self.data.facts(self.method.view_configs.values())

    @model_validator(mode="before")
    @classmethod
    def _with_data_in_its_place(cls, values: Any) -> Any:
        """Move what is said of the data where it belongs, as of recipes from before it had one."""
        if not isinstance(values, dict):
            return values
        data = values.get("data")
        kind = data.get("kind") if isinstance(data, dict) else getattr(data, "kind", None)
        if (kind or DEFAULT_KIND) not in KINDS:
            return values
        fields = modality(kind or DEFAULT_KIND).data_config.model_fields  # type: ignore[attr-defined]
        lifted = {name: value for name, value in values.items() if name in fields}
        if lifted:
            kept = {name: value for name, value in values.items() if name not in lifted}
            values = {**kept, "data": {**dict(data or {}), **lifted}}
        reasons = values.get("reasons")
        if isinstance(reasons, dict) and not fields.keys().isdisjoint(reasons):
            named = {f"data.{n}" if n in fields else n: why for n, why in reasons.items()}
            values = {**values, "reasons": named}
        return values

    @field_validator("data", mode="before")
    @classmethod
    def _data_of_its_kind(cls, value: Any) -> Any:
        if isinstance(value, DataConfig):
            return value
        if value is not None and not isinstance(value, dict):
            raise ValueError("data is a mapping, of which kind says what it is")
        given = value or {}
        return modality(given.get("kind", DEFAULT_KIND)).data_config.model_validate(given)  # type: ignore[attr-defined]

    @field_validator("backbone", mode="before")
    @classmethod
    def _network_of_its_kind(cls, value: Any, info: Any) -> Any:
        if isinstance(value, NetworkConfig) or "data" not in info.data:
            return value
        kind = modality(info.data["data"].kind).network_config
        return kind.model_validate({} if value is None else value)  # type: ignore[attr-defined]

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if "name" not in value:
                raise ValueError("a method needs a name")
            settings = {key: given for key, given in value.items() if key != "name"}
            return make_config(value["name"], settings)
        return value


def _with_value(config: Any, keys: Sequence[str], value: Any) -> Any:
    name, *inside = keys
    return config.changed(
        **{name: _with_value(getattr(config, name), inside, value) if inside else value}
    )


def because(recipe: Recipe, reason: str, **fields: Any) -> Recipe:
    """The recipe with these fields, and why they are so.

    Args:
        recipe: what is changed.
        reason: for the reader of the recipe.
        fields: by name, or by path: ``**{"optimizer.warmup_epochs": 2.0}``.
    """
    for path, value in fields.items():
        recipe = recipe.with_value(path, value)
    return recipe.changed(reasons=recipe.reasons | dict.fromkeys(fields, reason))


def arithmetic_of(recipe: Recipe) -> Arithmetic:
    """What the recipe says of precision, memory format and attention."""
    return Arithmetic(
        torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32,
        channels_last=recipe.memory_format == "channels_last",
        plain_attention=recipe.attention == "plain",
        activation_checkpointing=recipe.activation_checkpointing,
    )


# Tables whose keys are not known before there is data or a network.
_FREE_FORM = ("options", "weights")


def touched_fields(assignments: Sequence[str]) -> set[str]:
    """The fields that assignments such as ``"method.temperature=0.2"`` set.

    Those of the data are called without it, as on the command line: "image_size".
    """
    paths = (assignment.partition("=")[0].strip() for assignment in assignments)
    return {path.removeprefix("data.") for path in paths}


def override(recipe: Recipe, assignments: Sequence[str], *, option: str = "--set") -> Recipe:
    """A copy with fields replaced: ``override(recipe, ["method.temperature=0.2"])``.

    Values are YAML: numbers, true/false, null, lists such as ``[0.2, 1]``. Errors name ``option``
    as the place where they were given.

    Raises:
        UserError: a text without "=", an unknown field, or a value out of range.
    """
    data = recipe.model_dump()
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"{option} {assignment!r} has no value; write it as FIELD=VALUE")
        keys = path.strip().split(".")
        if keys[0] not in data and keys[0] in data["data"]:
            keys.insert(0, "data")
        path = ".".join(keys)
        if keys == ["method", "name"]:
            raise UserError(f"{option} {assignment!r}: choose the method with --method instead")
        place: Any = data
        for depth, key in enumerate(keys):
            free_form = depth > 0 and keys[depth - 1] in _FREE_FORM
            if not isinstance(place, dict) or (key not in place and not free_form):
                known = list(place) if isinstance(place, dict) else []
                known += [] if depth else list(data["data"])
                where = ".".join(keys[:depth]) or "a recipe"
                hint = did_you_mean(key, known) if known else "it has no fields"
                if inside := [k for k, v in data.items() if isinstance(v, dict) and key in v]:
                    hint = f"did you mean {' or '.join(f'{name}.{key}' for name in inside)}?"
                raise UserError(f"no field {key!r} in {where}: {hint}")
            if depth < len(keys) - 1:
                place = place[key]
        place[keys[-1]] = parse_yaml(text, f"{option} {assignment!r}: the value")
        data["reasons"] = {
            field: reason
            for field, reason in data["reasons"].items()
            if not f"{field}.".startswith(f"{path}.")  # of the field or inside it
        }
    return parse_recipe(data, " ".join(f"{option} {a}" for a in assignments) or "the recipe")


def parse_recipe(data: Any, where: str) -> Recipe:
    """Validate a nested mapping.

    Raises:
        UserError: names the first wrong field, its value, and ``where`` it stands.
    """
    return validated(Recipe, data, where)


def validated(kind: type[ModelT], data: Any, where: str) -> ModelT:
    """A nested mapping as a recipe of some kind; see :func:`parse_recipe`."""
    if not isinstance(data, dict):
        raise UserError(f"{where} is not a recipe: a mapping with method, optimizer, ... is needed")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), UserError):
            raise UserError(f"{where}: {cause}") from error
        field = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")  # one of ours
        given = "" if first["type"] in ("missing", "extra_forbidden") else f" ({first['input']!r})"
        if len(given) > 200:
            given = f"{given[:200]}...)"
        raise UserError(f"{where}: {field}{given}: {said}") from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe written by :func:`dump_recipe` or by hand.

    Raises:
        UserError: the file is missing, is not plain YAML, or is not a recipe.
    """
    return parse_recipe(read_yaml(path), str(path))


def dump_recipe(recipe: Config) -> str:
    """The recipe as YAML, every field written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def field_text(config: BaseModel, path: str) -> str:
    """The value at a path such as ``optimizer.base_lr``, as one would type it if it is short."""
    value: Any = config
    for key in path.split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        few = len(value) <= 8
        return f"[{', '.join(map(str, value))}]" if few else f"[{len(value):,} values]"
    return "null" if value is None else str(getattr(value, "name", value))
