"""The parts of a report in any format: tables of short texts, and notes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A cell: the number, its supplement, and whether it is the best of its row or rests on too few episodes."""

    main: str
    note: str = ""
    best: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Line:
    """A row; summaries (means and drops) are separated from scenarios."""

    label: str
    cells: tuple[Text, ...]
    summary: bool = False
    scenario: str | None = None


@dataclass(frozen=True)
class Block:
    """A table: a label column and named columns, rows in titled sections; `notes` are the document's notes on it.

    `head` names the label column where a format has a head for it.
    """

    title: str
    columns: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...] = ()
    head: str = "scenario"


@dataclass(frozen=True)
class Document:
    """The content that every format writes: a title, tables, and the notes that define their numbers."""

    title: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
