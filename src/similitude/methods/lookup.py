"""Methods of a user's own: classes outside the package, named by the place they are in.

A name runs code when it is imported, so only what the user says is: the name in a recipe or a
checkpoint, which may come from somebody else, finds a class that is loaded already or none.
"""

import importlib
import sys
from pathlib import Path
from typing import get_args, get_type_hints

from similitude.errors import UserError
from similitude.method import Method, MethodConfig


def annotated_configs(method: type[Method]) -> tuple[type[MethodConfig], ...]:
    """The configs that a method's ``__init__`` takes, by the annotation of ``config``."""
    kind = get_type_hints(method.__init__).get("config")
    kinds = get_args(kind) or (kind,)
    return tuple(k for k in kinds if isinstance(k, type) and issubclass(k, MethodConfig))


def place_of(method: type[Method]) -> str:
    """By which :func:`import_method` finds the class in another process: "module:Class"."""
    module = method.__module__
    if module in ("__main__", "__mp_main__"):  # a script, which others import by its file's name
        module = Path(getattr(sys.modules[module], "__file__", module)).stem
    return f"{module}:{method.__qualname__}"


def import_method(name: str) -> type[Method]:
    """The class at "module:Class", which the user names; modules in the current folder are found.

    Raises:
        UserError: there is no such module, or no method of this name in it.
    """
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise UserError(f"{name!r} is not a method of your own: write MODULE:CLASS")
    if (method := loaded_method(name)) is not None:
        return method
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # a module beside the photos is found as by python -m
    try:
        importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"cannot import {module_name!r} of method {name!r}: {error}") from error
    if (method := loaded_method(name)) is None:
        raise UserError(f"{module_name!r} has no subclass of Method called {class_name!r}")
    return method


def loaded_method(name: str) -> type[Method] | None:
    """The class at "module:Class" if this process has it already; nothing is imported."""
    module_name, _, class_name = name.partition(":")
    modules = [sys.modules.get(module_name)]
    main = sys.modules.get("__main__")
    if Path(getattr(main, "__file__", None) or "").stem == module_name:
        modules.insert(0, main)  # the script that runs: importing it again would run it again
    for module in modules:
        method = vars(module).get(class_name) if module is not None else None
        if isinstance(method, type) and issubclass(method, Method):
            return method
    return None
