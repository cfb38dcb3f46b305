"""Times `vgb merge`: `python benchmarks/merge.py [SHARDS] [EPISODES_EACH]`.

The rows are those of the published expert's log, renumbered and split into shards, so they have realistic sizes.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.merge import merge

SOURCE = Path(__file__).resolve().parent / "results" / "expert-builtin"


def write_shards(folder: Path, shards: int, each: int) -> list[Path]:
    """Writes the logs of `shards` shards with `each` rows each; returns their folders."""
    source = EvalLog(SOURCE)
    rows = source.rows()
    logs = []
    for shard in range(shards):
        log = folder / f"shard-{shard}"
        log.mkdir()
        shutil.copy(SOURCE / "run.json", log)
        mine = islice(range(shard, shards * each, shards), each)
        with (log / "episodes.jsonl").open("w") as file:
            for number in mine:
                row = rows[number % len(rows)]
                file.write(json.dumps({**row, "index": 1000 + number // len(rows) * 100 + row["index"]}) + "\n")
        logs.append(log)
    return logs


def main() -> None:
    shards, each = (int(text) for text in [*sys.argv[1:], "100", "3072"][:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = write_shards(folder, shards, each)
        size = sum((log / "episodes.jsonl").stat().st_size for log in logs)
        start = time.perf_counter()
        merged = merge(logs, folder / "merged")
        took = time.perf_counter() - start
    answer = {"shards": shards, "rows": merged.rows, "megabytes": round(size / 1e6), "seconds": round(took, 2)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
