"""Builds a policy object from a card's factory, `module:attr`: imports it, checks its arguments, calls it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError, printable, suggest
from vla_gen_bench.policies.card import REFERENCE_PATTERN, Card
from vla_gen_bench.policies.contract import PolicyError, describe_failure, no_exit
from vla_gen_bench.policies.importing import find_spec, imported_from_elsewhere, look_in
from vla_gen_bench.runtime import UserInterrupt

Factory = Callable[..., Any]


def build(card: Card, options: dict[str, Any]) -> Any:
    """Calls the card's factory with its `kwargs`, overridden by `options`, and its checkpoint.

    Raises:
        UserError: The factory cannot be imported, does not accept an option, or misses a required one.
        PolicyError: The factory raised.
    """
    return _call(*check_arguments(card, options), card)


def check_arguments(card: Card, options: dict[str, Any]) -> tuple[Factory, dict[str, Any]]:
    """Returns the card's factory and the arguments to call it with; raises `UserError` as `build`."""
    factory = import_factory(card.factory, card.label, card.source.folder if card.source.kind == "folder" else None)
    _check_options(factory, card.kwargs, f"{card.label}: kwargs of its card")
    _check_options(factory, options, card.label)
    arguments = {**card.kwargs, **options}
    if card.checkpoint is not None and "checkpoint" not in arguments:
        arguments["checkpoint"] = card.checkpoint_path()
    _check_complete(factory, arguments, card.label)
    return factory, arguments


def import_factory(reference: str, label: str, folder: Path | None = None) -> Factory:
    """Imports `module:attr`; searches the working directory last, for policies that are not installed.

    Args:
        folder: The card's, see `look_in`.

    Raises:
        UserError: It cannot be imported, or another policy's module of the same name has been.
    """
    if not re.fullmatch(REFERENCE_PATTERN, reference):
        raise UserError(f"{label}: '{printable(reference)}' is not module:attr")
    look_in(folder)
    module, _, attribute = reference.partition(":")
    top = module.partition(".")[0]
    if other := imported_from_elsewhere(top):
        raise UserError(
            f"{label}: another module '{top}' is imported already, {other}; rename one, or use a new process"
        )
    try:
        with no_exit():
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
    except UserInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{label}: cannot import '{reference}': {describe_failure(error)}") from error
    if not callable(found):
        raise UserError(
            f"{label}: '{reference}' is a {type(found).__name__}; expected a class or function that gives a policy"
        )
    return found


def unimportable(reference: str) -> str | None:
    """Returns why `module:attr` cannot be imported, without running its code; None if no problem is found."""
    if not re.fullmatch(REFERENCE_PATTERN, reference):
        return f"'{printable(reference)}' is not module:attr"
    parts = reference.partition(":")[0].split(".")
    path: list[str] | None = None
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = find_spec(name, path)
        if spec is None:
            return f"no module '{name}'"
        try:
            path = list(spec.submodule_search_locations or [])
        except KeyError:  # a namespace inside a package: only importing that package would show it
            return None
    return None


def _call(factory: Factory, arguments: dict[str, Any], card: Card) -> Any:
    try:
        with no_exit():
            return factory(**arguments)
    except (UserError, UserInterrupt):
        raise
    except BaseException as error:  # a policy's own sys.exit() and KeyboardInterrupt too; Ctrl-C is `UserInterrupt`
        raise PolicyError(f"{card.label}: {card.factory} raised {describe_failure(error)}") from error


def _parameters(factory: Factory) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # compiled code without a signature: the call itself will check
        return [inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)]


def _check_options(factory: Factory, options: Iterable[str], where: str) -> None:
    """Raises `UserError` if `factory` does not accept all `options` by name."""
    parameters = _parameters(factory)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = [parameter.name for parameter in parameters if parameter.kind in named]
    for key in options:
        if key not in accepted:
            hint = suggest(key, accepted)
            listed = "" if "known:" in hint else f" (accepted: {', '.join(accepted)})"
            raise UserError(f"{where}: no option '{key}'{hint}{listed}")


def _check_complete(factory: Factory, arguments: dict[str, Any], label: str) -> None:
    """Raises `UserError` if an argument without a default is missing."""
    for parameter in _parameters(factory):
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variadic and parameter.name not in arguments:
            how = "--checkpoint ..." if parameter.name == "checkpoint" else f"--policy-option {parameter.name}=..."
            raise UserError(f"{label} needs {how}")
