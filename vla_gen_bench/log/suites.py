"""Finds the suite a log was made with, by its digest, wherever the log is read."""

from __future__ import annotations

from collections.abc import Iterator

from vla_gen_bench.episodes.lookup import folder_suites
from vla_gen_bench.episodes.suite import Suite, load_suite, read_suite, suite_from, union
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.header import Header


def find_suite_of(header: Header, name: str | None = None) -> Suite | None:
    """Returns the suite a log was made with, None if no suite has its digest.

    Args:
        header: The log's header.
        name: Where to look. None tries the names and files the log was made with, then the definition stored in the
            log, then all suites in known folders.

    Raises:
        UserError: The suite `name` does not exist or has another digest.
    """
    digest = header.suite.digest
    if name is not None:
        suite = load_suite(name)
        if suite.digest() != digest:
            raise UserError(f"suite '{name}' has digest {suite.digest()}, the runs have {digest}; name another suite")
        return suite
    return next((suite for suite in _candidates(header) if suite.digest() == digest), None)


def named_suite(header: Header) -> Suite:
    """Loads the suite from its recorded names, as it is now; raises `UserError` if one no longer exists."""
    return union([load_suite(source) for source in header.suite.sources or header.suite.id.split("+")])


def _candidates(header: Header) -> Iterator[Suite]:
    if header.suite.sources:
        yield from _attempt(lambda: named_suite(header))
    if header.suite.definition is not None:
        yield from _attempt(lambda: suite_from(header.suite.definition, "run.json: suite.definition"))
    for found in folder_suites().values():
        yield from _attempt(lambda found=found: read_suite(*found))


def _attempt(load) -> Iterator[Suite]:
    try:
        yield load()
    except (UserError, ValueError):  # removed, or no longer valid
        pass
