"""Every number on the command line lies between two bounds, and NaN lies nowhere."""

import click
import pytest

from vla_gen_bench.cli import vgb
from vla_gen_bench.cli.numbers import Real, Whole


def _options(command: click.Command, name: str):
    if isinstance(command, click.Group):
        for child in command.list_commands(click.Context(command)):
            yield from _options(command.get_command(click.Context(command), child), f"{name} {child}")
    for option in command.params:
        yield f"{name} {option.name}", option


def test_no_option_takes_a_number_without_bounds():
    found = list(_options(vgb, "vgb"))
    loose = [
        name
        for name, option in found
        if option.type.name in ("integer", "float", "integer range", "float range")
        and not isinstance(option.type, (Whole, Real))
    ]
    assert loose == []
    assert sum(isinstance(option.type, (Whole, Real)) for _, option in found) > 20


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "-1", "x", "", "9" * 5000])
def test_numbers_beyond_their_bounds_are_refused(text):
    for kind in (Whole(0, 10), Real(0, 10)):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


def test_numbers_within_their_bounds_are_taken():
    assert Whole(0, 10).convert("10", None, None) == 10
    assert Real(0, 10).convert("2.5", None, None) == 2.5
