"""Finds policies (cards, plugins, references) and builds them.

A policy is given as the name of a built-in card or of a plugin (an entry point of the group `vla_gen_bench.policies`),
as a path to a `card.yaml` or to its folder, or as `module:attr`. They are tried in this order.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError, one_line, printable, suggest
from vla_gen_bench.policies.card import CARD_FILE, Card, DeclaredNeeds, Source, load_card
from vla_gen_bench.policies.contract import PolicyError, check_spec
from vla_gen_bench.policies.converters import Adapted, parse_adapter
from vla_gen_bench.policies.factory import build, check_arguments, import_factory, unimportable
from vla_gen_bench.policies.identity import distribution
from vla_gen_bench.policies.remote.address import card_of, is_url
from vla_gen_bench.policies.sizes import params_of
from vla_gen_bench.protocol import ActionSpec, Needs, Policy
from vla_gen_bench.resources import data_dir
from vla_gen_bench.strict_yaml import parse, parse_yaml

GROUP = "vla_gen_bench.policies"


@dataclass(frozen=True)
class Listing:
    """One row of `vgb policies list`, gathered without importing any policy.

    Attributes:
        source: "built-in", or "name version" of the plugin's distribution.
        privileged: None if unknown without importing (plugins).
        problem: Why it cannot be used, as far as visible without an import; None if no problem was found.
        params: Number of parameters; None if unknown without importing or downloading.
    """

    name: str
    source: str
    privileged: bool | None
    summary: str
    problem: str | None = None
    params: int | None = None


def list_policies() -> list[Listing]:
    """Returns the built-in cards, then the plugins, each by name. Imports none; broken ones are listed too."""
    cards = [_list_card(file) for file in _card_files()]
    taken: dict[str, str] = {row.name: "the built-in policy" for row in cards}
    plugins = []
    for point in _plugins():
        problem = f"name taken by {taken[point.name]}" if point.name in taken else unimportable(point.value)
        plugins.append(Listing(point.name, distribution(point), None, _summary(point), problem))
        taken.setdefault(point.name, distribution(point))
    return cards + plugins


def resolve(ref: str) -> Card:
    """Returns the card of a policy; a policy without a card file gets a minimal card from its factory.

    The factory is imported only in the latter case (plugins and `module:attr`). Its attributes `privileged` (default
    False) and `needs` and the first line of its docstring go into the card.

    Warns (`UserWarning`) if several policies have the name: the built-in one wins, then the distribution first by name.

    Raises:
        UserError: Unknown name; the card is invalid; the plugin cannot be imported.
    """
    points = [point for point in _plugins() if point.name == ref]
    built_in = next((file for file in _card_files() if file.parent.name == ref), None)
    if built_in or points:
        _warn_if_ambiguous(ref, built_in, points)
        return load_card(built_in, "built-in") if built_in else _plugin_card(points[0])
    if is_url(ref):
        return card_of(ref)
    path = Path(ref).expanduser()
    if path.name == CARD_FILE or (path / CARD_FILE).exists():
        return load_card(path if path.name == CARD_FILE else path / CARD_FILE)
    if ":" in ref:
        return _make_card(ref, ref, Source("reference"))
    if path.exists() or "/" in ref:
        raise UserError(f"policy '{printable(ref)}': no such folder with a {CARD_FILE} in it")
    names = [row.name for row in list_policies()]
    raise UserError(f"unknown policy '{ref}'{suggest(ref, names)}; or give module:attr, or a folder with a {CARD_FILE}")


def load_policy(ref: str | Card, **options: Any) -> Policy:
    """Builds a policy and checks its action spec.

    Args:
        ref: As for `resolve`, or its result.
        options: Arguments of the factory; they override the card's `kwargs`. `adapter`, a list of converters,
            overrides the card's.

    Raises:
        UserError: As `resolve`; or the factory does not accept an option, or misses a required one.
        PolicyError: The factory raised, or its result is not a usable policy.
    """
    card = ref if isinstance(ref, Card) else resolve(ref)
    entries = adapter_entries(card, options)
    policy = build(card, _of_factory(options))
    if entries is None:
        entries = getattr(policy, "default_adapter", ())
    converters = parse_adapter(entries, f"{card.label}: adapter", card.source.folder)
    if hasattr(policy, "prepare"):
        policy.prepare(converters)
    if converters:
        policy = _adapted(policy, converters, card)
    check_spec(card.label, policy)
    _check_promises(card, policy)
    return policy


def check_options(card: Card, options: dict[str, Any]) -> None:
    """Raises `UserError` as `load_policy` for options that do not fit; imports the factory, builds no policy."""
    check_arguments(card, _of_factory(options))


def _of_factory(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "adapter"}


def adapter_entries(card: Card, options: dict[str, Any]) -> Any:
    """Returns the user's list of converters, else the card's; None if neither has one."""
    return options.get("adapter", card.adapter or None)


def _adapted(policy: Any, converters: list[Any], card: Card) -> Policy:
    spec = getattr(policy, "action_spec", None)
    if not isinstance(spec, ActionSpec):
        raise PolicyError(
            f"{card.label}: action_spec is {type(spec).__name__}; expected vla_gen_bench.policies.ActionSpec"
        )
    return Adapted(policy, converters)


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Parses the `key=value` pairs of `--policy-option` as factory arguments; values are YAML: 3, 0.6, true, [1, 2]."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--policy-option {pair}: expected key=value, the key a Python name")
        if key in options:
            raise UserError(f"--policy-option {pair}: '{key}' is given twice")
        options[key] = parse_yaml(text, f"--policy-option {one_line(pair, 80)}")
    return options


def _card_files() -> list[Path]:
    return sorted((data_dir() / "policies").glob(f"*/{CARD_FILE}"))


def _plugins() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, distribution(point)))


def _summary(point: EntryPoint) -> str:
    """Returns the one-line description of the plugin's package, the only one available without importing it."""
    metadata = point.dist.metadata if point.dist else {}
    return metadata["Summary"] if "Summary" in metadata else point.value


def _list_card(file: Path) -> Listing:
    try:
        card = load_card(file, "built-in")
        card.checkpoint_path()
    except UserError as error:
        return Listing(file.parent.name, "built-in", None, "", str(error))
    problem = unimportable(card.factory)
    return Listing(card.name, "built-in", card.privileged, card.summary, problem, params_of(card))


def _warn_if_ambiguous(ref: str, built_in: Path | None, points: list[EntryPoint]) -> None:
    rivals = (["the built-in policy"] if built_in else []) + [distribution(point) for point in points]
    if len(rivals) > 1:
        warnings.warn(f"policy '{ref}' comes from {', '.join(rivals)}; {rivals[0]} is used", stacklevel=3)


def _plugin_card(point: EntryPoint) -> Card:
    reference = point.value.partition("[")[0].strip()  # an entry point may end in required extras
    return _make_card(point.name, reference, Source("plugin", distribution=distribution(point)))


def _make_card(name: str, reference: str, source: Source) -> Card:
    """Returns a card for a policy that has none; imports its factory."""
    origin = f" ({source.distribution})" if source.distribution else ""
    factory = import_factory(reference, f"policy '{printable(name)}'{origin}")
    summary = (inspect.getdoc(factory) or "no description").splitlines()[0]
    privileged = bool(getattr(factory, "privileged", False))
    needs = parse(DeclaredNeeds, asdict(_declared_needs(factory, reference)), f"policy '{printable(name)}': needs")
    card = Card(name=name, title=name, summary=summary, factory=reference, privileged=privileged, needs=needs)
    return card.with_source(source)


def _declared_needs(factory: Any, reference: str) -> Needs:
    needs = getattr(factory, "needs", Needs())
    if not isinstance(needs, Needs):
        raise PolicyError(
            f"policy '{reference}': needs is {type(needs).__name__}; expected vla_gen_bench.policies.Needs(...)"
        )
    return needs


def _check_promises(card: Card, policy: Policy) -> None:
    """Raises `PolicyError` if the policy's action spec differs from its card."""
    for key, promised in card.action_spec.model_dump(exclude_none=True).items():
        found = getattr(policy.action_spec, key)
        if found != promised:
            raise PolicyError(f"{card.label}: its card says action_spec.{key}: {promised}, the policy says {found}")
