"""Writes the source list of the rl4vla pack: `make_rl4vla_manifest.py ASSETS_DIR`, a copy at the pinned commits.

A visual that is in the catalogue but not in the copy gets no digest. Only digests enter the project, no pack files.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from vla_gen_bench.assets.source import Entry, Source, Upstream
from vla_gen_bench.episodes.catalog import load_catalog

UPSTREAMS = (
    Upstream(
        folder="rl4vla",
        url="https://github.com/gen-robot/RL4VLA",
        commit="55f966d",
        path="ManiSkill/mani_skill/assets/carrot",
    ),
    Upstream(
        folder="widowx250s",
        url="https://github.com/haosulab/ManiSkill-WidowX250S",
        commit="6a12bb745d964aab9fc897f0999cad53aa29000c",
        path="",
    ),
)
LICENCE = (
    "The licence of the 3-D objects and photos is not stated upstream: treat it as unknown, use them for research on "
    "this machine, never redistribute them."
)


def entries(root: Path) -> dict[str, Entry]:
    files = {}
    for path in sorted(
        path for upstream in UPSTREAMS for path in (root / upstream.folder).rglob("*") if path.is_file()
    ):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files[path.relative_to(root).as_posix()] = Entry(size=len(content), sha256=digest)
    catalog = load_catalog("rl4vla")
    visuals = {body.visual for body in (*catalog.objects, *catalog.receptacles)}
    return files | {name: Entry(size=None, sha256=None) for name in sorted(visuals - files.keys())}


def main() -> None:
    source = Source(world="rl4vla", licence=LICENCE, upstreams=UPSTREAMS, files=entries(Path(sys.argv[1])))
    out = Path(__file__).parents[1] / "vla_gen_bench/assets/sources/rl4vla.json"
    out.write_text(source.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
