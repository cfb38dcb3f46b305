"""Writes demonstrations, and reads them for training."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla_gen_bench.assets.world import FIRST_VERSION
from vla_gen_bench.episodes.spec import EpisodeSpec, digest_of
from vla_gen_bench.errors import UserError, shown, suggest
from vla_gen_bench.log.guard import check_held
from vla_gen_bench.protocol import STATE, STATE_DIMS, STATE_NAMES
from vla_gen_bench.train.demos import checks
from vla_gen_bench.train.demos import lerobot_format as form
from vla_gen_bench.train.demos import lerobot_reader as reader
from vla_gen_bench.train.demos.demonstrate import Demo
from vla_gen_bench.train.demos.image_cache import CACHE, cached_pictures
from vla_gen_bench.train.demos.lerobot_reader import DataMap
from vla_gen_bench.train.demos.sentences import decisive_names

OWN_FILE = "meta/vgb.json"  # how the data was made; LeRobot ignores this file
UNNAMED = {  # defaults for data sets of earlier versions
    "wander": 0.0, "shift": {}, "swap": False, "world_version": FIRST_VERSION, "cameras": ["external"], "render": None,
}  # fmt: skip
TOTALS = ("total_episodes", "total_frames", "total_tasks")
NEWER = ("driver", "simulator", "catalog", "pack")  # recorded since 2026-11-30; the first two if another policy drives
EXPERT = "expert"
PART_DEMOS = 100
SAMPLED_FRAMES = 2000  # for the statistics of images


@dataclass
class Writer:
    """Appends demonstrations to a folder, part by part; reopening it resumes after the last finished part.

    Attributes:
        folder: The data set.
        side: S, pixels.
        origin: How the data is made: world, policy, seed, noise, ...; must be equal when continued.
        wrist: Whether the demonstrations have a wrist camera.
    """

    folder: Path
    side: int
    origin: dict[str, Any]
    wrist: bool = False
    _demos: list[Demo] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if (self.folder / form.INFO_FILE).is_file():
            own = read_own(self.folder)
            self._check_origin(own["origin"])
            own["origin"] |= self._unrecorded(own["origin"])  # checked from here on
            self.info, self.own = form.read_info(self.folder), own
            if form.IMAGE not in self.info["features"]:
                raise UserError(f"{self.folder}: was collected by an earlier version; choose another --out")
            self.info |= own.get("totals", {})  # if killed between writing the two files, info.json lacks the last part
            form.check_whole(self.info, TOTALS, f"{self.folder / form.INFO_FILE}: ")
        else:
            self._check_empty()
            self.info, self.own = self._new_info(), {"origin": self.origin, "attempts": 0, "failed": {}}

    def _unrecorded(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """Returns what of `origin` the data set of an earlier version does not tell."""
        return {key: self.origin[key] for key in NEWER if key in self.origin and key not in recorded}

    def _check_origin(self, recorded: dict[str, Any]) -> None:
        """Raises `UserError` if what was collected depends on something else than what is to be added."""
        before = {**UNNAMED, **recorded, **self._unrecorded(recorded)}
        unused = "options" if self.origin.get("policy", EXPERT) == EXPERT else "noise"
        for key in [key for key in self.origin if key != unused and before.get(key) != self.origin[key]]:
            what = f"{key} {before.get(key)!r}, not {self.origin[key]!r}"
            if key == "driver":
                what = f"another checkpoint, code or files behind --policy {self.origin['policy']}"
            raise UserError(f"{self.folder}: was collected with {what}; choose another --out")

    def _check_empty(self) -> None:
        """Allows overwriting only what a killed collection left."""
        others = sorted({path.name for path in self.folder.glob("*")} - {"data", "videos", "meta", CACHE})
        if others:
            raise UserError(f"{self.folder}: is no data set, and holds {others[0]}; choose another --out")

    def _new_info(self) -> dict[str, Any]:
        return {
            "codebase_version": form.VERSION,
            "robot_type": "widowx",
            "fps": form.FPS,
            "features": form.features(self.side, self.wrist),
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": form.PARTS_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "data_path": form.DATA_PATH,
            "video_path": form.VIDEO_PATH,
            "splits": {"train": "0:0"},
        }

    @property
    def kept(self) -> int:
        """Demonstrations so far, including unwritten ones."""
        return self.info["total_episodes"] + len(self._demos)

    @property
    def attempts(self) -> int:
        """Episodes tried so far; the next one has this index."""
        return self.own["attempts"]

    def add(self, demo: Demo) -> None:
        """Takes the episode of index `attempts`; failed ones are only counted."""
        self.own["attempts"] += 1
        if demo.success and len(demo):
            self._demos.append(demo)
        else:
            target = demo.spec.target.id
            self.own["failed"][target] = self.own["failed"].get(target, 0) + 1
        if len(self._demos) >= PART_DEMOS:
            self.flush()

    def flush(self) -> None:
        """Writes the demonstrations taken since the last call as one part."""
        check_held(self.folder)  # `finish` writes more, also if no demonstration is left
        if not self._demos:
            return
        place = form.Place(self.own.get("parts", 0))
        tasks = self._tasks()
        self._write_frames(place, tasks)
        pictures = {form.IMAGE: "images", form.FOREGROUND: "foreground"} | ({form.WRIST: "wrist"} if self.wrist else {})
        for key, column in pictures.items():
            path = form.video_file(self.folder, place, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            form.write_video(path, np.concatenate([getattr(demo, column) for demo in self._demos]))
        self._write_episodes(place, tasks)
        self._count(place, tasks)

    @property
    def finished(self) -> bool:
        """Whether the statistics exist and cover all data."""
        if self._demos or not (self.folder / form.STATS_FILE).is_file():
            return False
        stats = form.read_json(self.folder / form.STATS_FILE).get("action")
        return isinstance(stats, dict) and stats.get("count") == [self.info["total_frames"]]

    def finish(self) -> None:
        """Writes the remaining demonstrations, and the statistics over all data."""
        self.flush()
        form.write_json(self.folder / form.INFO_FILE, self.info)
        demos = load(self.folder)
        chosen = np.unique(np.linspace(0, len(demos.actions) - 1, SAMPLED_FRAMES).astype(int))
        parts = [form.Place(part) for part in range(self.own["parts"])]
        kinds = {key: kind for key, kind in checks.frame_columns(False).items() if key in form.NUMBERS}
        numbers = _joined([form.read_columns(part.path(self.folder, form.DATA_PATH), kinds) for part in parts])
        stats = {key: form.numeric_stats(values) for key, values in numbers.items()}
        stats[form.IMAGE] = form.image_stats(demos.images[chosen])
        if self.wrist:
            shape = (len(demos.actions), *demos.images.shape[1:])
            stats[form.WRIST] = form.image_stats(cached_pictures(self.folder, parts, form.WRIST, shape)[chosen])
        form.write_json(self.folder / form.STATS_FILE, stats)

    def _tasks(self) -> dict[str, int]:
        """Returns instruction -> task_index, with new ones at the end."""
        known = list(form.read_frame(self.folder / form.TASKS_FILE).index) if self.info["total_tasks"] else []
        for demo in self._demos:
            if demo.spec.instruction not in known:
                known.append(demo.spec.instruction)
        return {task: index for index, task in enumerate(known)}

    def _write_frames(self, place: form.Place, tasks: dict[str, int]) -> None:
        episodes, own = [], []
        episode, first = self.info["total_episodes"], self.info["total_frames"]
        for demo in self._demos:
            steps = np.arange(len(demo), dtype=np.int64)
            episodes.append(
                {
                    "action": demo.actions,
                    "observation.state": _observed(demo),
                    "timestamp": (steps / form.FPS).astype(np.float32),
                    "frame_index": steps,
                    "episode_index": np.full_like(steps, episode),
                    "index": first + steps,
                    "task_index": np.full_like(steps, tasks[demo.spec.instruction]),
                }
            )
            own.append({"executed": demo.executed, "pose": demo.states})
            episode, first = episode + 1, first + len(demo)
        form.write_frames(place.file(self.folder, form.OWN_DATA_PATH), own)
        form.write_frames(place.file(self.folder, form.DATA_PATH), episodes)

    def _write_episodes(self, place: form.Place, tasks: dict[str, int]) -> None:
        import pandas as pd

        rows, begin, within = [], self.info["total_frames"], 0
        for number, demo in enumerate(self._demos):
            rows.append(self._episode_row(place, demo, self.info["total_episodes"] + number, begin, within))
            begin, within = begin + len(demo), within + len(demo)
        pd.DataFrame(rows).to_parquet(place.file(self.folder, form.EPISODES_PATH), index=False)
        table = pd.DataFrame({"task_index": list(tasks.values())}, index=pd.Index(list(tasks), name="task"))
        draft = (self.folder / form.TASKS_FILE).with_suffix(".tmp")
        table.to_parquet(draft)
        draft.replace(self.folder / form.TASKS_FILE)

    def _episode_row(self, place: form.Place, demo: Demo, episode: int, begin: int, within: int) -> dict[str, Any]:
        spec, where = demo.spec, place.numbers
        row = {"episode_index": episode, "tasks": [spec.instruction], "length": len(demo)}
        row |= {f"data/{key}": value for key, value in where.items()}
        row |= {"dataset_from_index": begin, "dataset_to_index": begin + len(demo)}
        for key in form.cameras(self.wrist):
            span = {"from_timestamp": within / form.FPS, "to_timestamp": (within + len(demo)) / form.FPS}
            row |= {f"videos/{key}/{name}": value for name, value in {**where, **span}.items()}
        row |= {f"meta/episodes/{key}": value for key, value in where.items()}
        for key, values in (("action", demo.actions), ("observation.state", _observed(demo))):
            row |= {f"stats/{key}/{name}": value for name, value in form.numeric_stats(values).items()}
        own = {"seed": spec.seed, "index": spec.index, "spec": spec.model_dump_json(), "digest": spec.digest()}
        own |= {"table": spec.table, "target": spec.target.id}
        return {**row, **{f"vgb/{key}": value for key, value in own.items()}}

    def _count(self, place: form.Place, tasks: dict[str, int]) -> None:
        """Makes the part valid by recording it in `OWN_FILE`; info.json repeats that for LeRobot."""
        episodes = self.info["total_episodes"] + len(self._demos)
        totals = {
            "total_episodes": episodes,
            "total_frames": self.info["total_frames"] + sum(map(len, self._demos)),
            "total_tasks": len(tasks),
            "splits": {"train": f"0:{episodes}"},
        }
        own = {**self.own, "parts": place.part + 1, "totals": totals}
        form.write_json(self.folder / OWN_FILE, own)
        self.own, self.info, self._demos = own, {**self.info, **totals}, []
        form.write_json(self.folder / form.INFO_FILE, self.info)


@dataclass(frozen=True)
class Demos:
    """Demonstrations in memory: F frames of E episodes, in order.

    Attributes:
        images, foreground, actions, executed, states: As in `Demo`, for the frames of all episodes in sequence.
        episode: int64 [F], 0 to E - 1.
        instructions, tables, targets: One per episode; tables and targets are asset ids.
        decisive: Per episode, the names in the instruction that tell what is meant among several things of a kind.
        starts: int64 [E + 1], the first frame of each episode, and F.
        world: World name.
        observed: As in `Demo`; None if the data set lacks the state that a policy sees.
        wrist: As in `Demo`; None if the data set has no wrist camera, or it was not asked for.
    """

    images: np.ndarray
    foreground: np.ndarray
    actions: np.ndarray
    executed: np.ndarray
    states: np.ndarray
    episode: np.ndarray
    instructions: list[str]
    tables: list[str]
    targets: list[str]
    decisive: list[tuple[str, ...]]
    starts: np.ndarray
    world: str
    observed: np.ndarray | None = None
    wrist: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.instructions)

    def summary(self) -> str:
        """Identifies the data in one phrase: counts, and a digest of actions and instructions."""
        what = digest_of([self.instructions, self.tables, hashlib.sha256(self.actions.tobytes()).hexdigest()])
        return f"{len(self):,} demonstrations of {len(self.actions):,} frames ({what})"


def read_own(folder: Path) -> dict[str, Any]:
    """Returns how a data set was made; raises `UserError` if that is missing or broken."""
    own = form.read_json(folder / OWN_FILE)
    form.need_keys(own, ("origin", "attempts", "failed", "parts"), folder / OWN_FILE)
    form.check_whole(own, ("attempts", "parts"), f"{folder / OWN_FILE}: ")
    for key in ("origin", "failed", "totals"):
        if not isinstance(own.get(key, {}), dict):
            raise UserError(f"{folder / OWN_FILE}: {key}: expected a mapping, got {shown(own[key])}")
    if not isinstance(own["origin"].get("world"), str):
        raise UserError(f"{folder / OWN_FILE}: origin.world: expected a name, got {shown(own['origin'].get('world'))}")
    totals = own.get("totals", {})
    form.check_whole(totals, [key for key in TOTALS if key in totals], f"{folder / OWN_FILE}: totals.")
    return own


def _observed(demo: Demo) -> np.ndarray:
    """Returns the state a policy sees; synthetic demonstrations have none."""
    return np.zeros((len(demo), STATE_DIMS), np.float32) if demo.observed is None else demo.observed


def is_whole(folder: Path, info: dict[str, Any]) -> bool:
    """Whether the data set is ours as collected, rather than foreign or edited by LeRobot's tools."""
    old = form.is_old(info["features"])
    if not (folder / OWN_FILE).is_file() or not (old or (folder / form.OWN_FOLDER).is_dir()):
        return not (folder / "meta" / "episodes").is_dir() or old  # nothing to read: `load` reports what is missing
    own = read_own(folder)
    totals = own.get("totals", info)
    given = [totals.get(name) for name in ("total_episodes", "total_frames")]
    if not all(type(value) is int for value in given) or type(own["parts"]) is not int:
        return True  # broken: `load` reports where
    if given == [info.get(name) for name in ("total_episodes", "total_frames")]:
        return True
    rows = [form.count_rows(form.Place(part).path(folder, form.EPISODES_PATH)) for part in range(own["parts"])]
    return sum(rows) == totals["total_episodes"]  # after a kill only info.json lacks the last part


def load(
    folder: Path,
    episodes: int | None = None,
    pictures: bool = True,
    mapping: DataMap | None = None,
    world: str = "",
    wrist: bool = False,
) -> Demos:
    """Reads the first `episodes` demonstrations (None = all).

    A smaller number gives a subset of a larger one, so sizes are nested. Images are decoded once into FOLDER/cache
    and memory-mapped from there: processes share them, and a resumed run starts at once.

    Args:
        images: Whether to decode them; if not, `images` and `foreground` are empty.
        mapping, world: For other projects' data sets, and for ours after LeRobot's tools edited them: what to read,
            and the world to record for it.
        wrist: Whether to decode the wrist camera too, if the data set has one.

    Raises:
        UserError: Not a data set, a file is broken, or it has fewer demonstrations.
    """
    info = form.read_info(folder)
    if mapping is not None or not is_whole(folder, info):
        return load_any(folder, episodes, pictures, mapping or DataMap(), world, wrist)
    own = read_own(folder)
    side = checks.check_info(info, folder / form.INFO_FILE)
    totals = own.get("totals", info)
    form.check_whole(totals, ("total_episodes",), f"{folder / OWN_FILE}: totals.")
    total = totals["total_episodes"]
    count = total if episodes is None else episodes
    if not total:
        raise UserError(f"{folder}: holds no demonstrations; collect some with 'vgb collect'")
    if not 1 <= count <= total:
        raise UserError(f"{folder}: holds {total} demonstrations, {count} were asked for")
    parts = [form.Place(part) for part in range(own["parts"])]
    old = form.is_old(info["features"])
    rows, data = _tables(folder, parts, count, old)
    lengths = rows["length"][:count].astype(np.int64)
    if len(lengths) < count:
        raise UserError(f"{folder}: {OWN_FILE} tells of more demonstrations than the tables hold; collect it again")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    frames = int(starts[-1])
    image, mask = (form.OLD_IMAGE, form.OLD_FOREGROUND) if old else (form.IMAGE, form.FOREGROUND)
    shapes = {image: (frames, side, side, 3), mask: (frames, side, side)}
    has_wrist = wrist and form.WRIST in info["features"]
    decode = cached_pictures if pictures else lambda folder, parts, key, shape: np.empty((0, *shape[1:]), np.uint8)
    return Demos(
        images=decode(folder, parts, image, shapes[image]),
        foreground=decode(folder, parts, mask, shapes[mask]),
        actions=data["action"][:frames],
        executed=data["executed"][:frames],
        states=data["pose"][:frames],
        episode=np.repeat(np.arange(count), lengths),
        instructions=[str(tasks[0]) for tasks in rows["tasks"][:count]],
        tables=list(rows["vgb/table"][:count]),
        targets=list(rows["vgb/target"][:count]),
        decisive=[_decisive(spec, folder) for spec in rows["vgb/spec"][:count]],
        starts=starts,
        world=own["origin"]["world"],
        observed=None if old else data["observation.state"][:frames],
        wrist=decode(folder, parts, form.WRIST, shapes[image]) if has_wrist else None,
    )


def _decisive(text: str, folder: Path) -> tuple[str, ...]:
    try:
        return decisive_names(EpisodeSpec.model_validate_json(text))
    except (ValueError, UserError):
        raise UserError(f"{folder}: vgb/spec: is no episode: {shown(text)}; collect it again") from None


def _tables(folder: Path, parts: Sequence[form.Place], count: int, old: bool) -> tuple[dict, dict]:
    """Returns the episode columns and the frame columns of the parts that hold the first `count` episodes."""
    episodes: list[dict[str, np.ndarray]] = []
    frames: list[dict[str, np.ndarray]] = []
    first = frame = 0
    for place in parts:
        if first >= count:
            break
        file = place.path(folder, form.EPISODES_PATH)
        rows = form.read_columns(file, checks.EPISODE_COLUMNS)
        checks.check_episodes(rows, file, first, frame)
        file = place.path(folder, form.DATA_PATH)
        numbers = form.read_columns(file, checks.frame_columns(old))
        if old:
            numbers = {**numbers, "executed": numbers[form.OLD_EXECUTED], "pose": numbers["observation.state"]}
        else:
            numbers |= form.read_columns(place.path(folder, form.OWN_DATA_PATH), checks.OWN_COLUMNS)
        checks.check_frames(numbers, file, rows["length"], first, frame)
        episodes.append(rows)
        frames.append(numbers)
        first, frame = first + len(rows["length"]), frame + len(numbers["index"])
    return _joined(episodes), _joined(frames)


def load_any(
    folder: Path, episodes: int | None, pictures: bool, mapping: DataMap, world: str, wrist: bool = False
) -> Demos:
    """Reads any LeRobotDataset v3.0. No foreground mask, so no replaced tables; states only from our data."""
    info = form.read_info(folder)
    checks.check_features(info["features"], folder / form.INFO_FILE)
    reader.check_rate(info, mapping, folder)
    camera = reader.camera_of(info, mapping, folder)
    state = [key for key in ("observation.state",) if info["features"].get(key, {}).get("names") == list(STATE_NAMES)]
    if mapping.action not in info["features"]:
        raise UserError(f"{folder}: data_map.action: no '{mapping.action}'{suggest(mapping.action, info['features'])}")
    table = reader.read_table(folder, [mapping.action, *state])
    count = len(table.episodes) if episodes is None else episodes
    if not 1 <= count <= len(table.episodes):
        raise UserError(f"{folder}: holds {len(table.episodes)} demonstrations, {count} were asked for")
    lengths = np.array([row["length"] for row in table.episodes[:count]])
    frames = int(lengths.sum())
    actions = reader.converted(table.columns[mapping.action][:frames], mapping, folder)
    own = read_own(folder)["origin"] if (folder / OWN_FILE).is_file() else {}
    side = info["features"][camera]["shape"][0] if camera == form.IMAGE else mapping.side
    images = np.empty((0, side, side, 3), np.uint8)
    if pictures:
        images = reader.pictures(folder, table, camera, side, frames)
    has_wrist = wrist and pictures and form.WRIST in info["features"]
    observed = table.columns[state[0]][:frames].astype(np.float32) if state else None
    return Demos(
        images=images,
        foreground=np.broadcast_to(np.uint8(255), images.shape[:3]),
        actions=actions,
        executed=actions,
        states=np.zeros((frames, 7), np.float32) if observed is None else _poses(observed),
        episode=np.repeat(np.arange(count), lengths),
        instructions=reader.instructions(folder, table)[:count],
        tables=[""] * count,
        targets=[""] * count,
        decisive=[()] * count,
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        world=own.get("world", world),
        observed=observed,
        wrist=reader.pictures(folder, table, form.WRIST, side, frames) if has_wrist else None,
    )


def _poses(states: np.ndarray) -> np.ndarray:
    """Returns float32 [F, 7], as `Demo.states`, from states as a policy sees them."""
    rotation = Rotation.from_quat(np.roll(states[:, STATE["ee_quaternion"].columns], -1, axis=1))
    finger = 0.015 + 0.022 * states[:, STATE["gripper_opening"].columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these angles are singular for a gripper that points straight down
        angles = rotation.as_euler("XYZ")
    return np.concatenate([states[:, STATE["ee_position"].columns], angles, finger], axis=1).astype(np.float32)


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in (parts[0] if parts else ())}
