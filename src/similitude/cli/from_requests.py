"""The command line's options, made of the requests in which they are written."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any

import typer

from similitude.training.request import flag_of

Command = Callable[..., None]


def with_options(request: type) -> Callable[[Command], Command]:
    """Give a command the arguments and options that a request has for the command line."""
    shown = [field for field in fields(request) if field.metadata.get("cli") is not None]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(**options: Any) -> None:
            given = {name: value for name, value in options.items() if value is not None}
            command(**given)  # what is not given has the request's own default

        parameters = [_parameter(field) for field in shown]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _parameter(field: Any) -> inspect.Parameter:
    told, kind = field.metadata, field.metadata["cli"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    if field.default is MISSING:
        shown = typer.Argument(metavar=told["metavar"], help=told["text"])
        return inspect.Parameter(field.name, keyword, annotation=Annotated[kind, shown])
    shown = typer.Option(
        flag_of(field), help=told["text"], metavar=told["metavar"], min=told["least"]
    )
    default = None if field.default == () else field.default
    kind = kind | None if default is None else kind
    return inspect.Parameter(
        field.name, keyword, default=default, annotation=Annotated[kind, shown]
    )
