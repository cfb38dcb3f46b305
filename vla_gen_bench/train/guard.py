"""Recognises a folder of demonstrations without importing the code that reads it."""

from __future__ import annotations

INFO_FILE = "meta/info.json"
