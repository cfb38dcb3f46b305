"""By what a folder of demonstrations is known, without importing what reads one."""

from __future__ import annotations

INFO_FILE = "meta/info.json"
