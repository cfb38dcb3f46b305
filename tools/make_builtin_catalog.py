"""Writes the builtin catalogue from the generator's assets.

Run it after changing an asset, and raise the version in `vla_gen_bench/assets/generated.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from vla_gen_bench.assets.generated import write_pack


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_pack("builtin", Path(folder))
    out = Path(__file__).parents[1] / "vla_gen_bench/episodes/catalogs/builtin.json"
    out.write_text(catalog.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
