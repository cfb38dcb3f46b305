"""What a report consists of, whatever its format: tables of short texts, and notes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A cell: the number, what belongs to it, whether it is the best of its row or rests on too few episodes."""

    main: str
    note: str = ""
    best: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Line:
    """A row; summaries (means and drops) are set apart from scenarios."""

    label: str
    cells: tuple[Text, ...]
    summary: bool = False
    scenario: str | None = None


@dataclass(frozen=True)
class Block:
    """A table: named columns after the label's, lines in titled sections; `notes` are those of its document on it."""

    title: str
    columns: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """What every format writes: a title, tables, and the notes that define their numbers."""

    title: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
