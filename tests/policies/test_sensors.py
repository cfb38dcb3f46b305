"""State, cameras, image size and history: what a policy needs is sensed, nothing else, and the log reports it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import sapien
from scipy.spatial.transform import Rotation
from sim import simple_spec, spec_of

from vla_gen_bench.assets.world import get_world
from vla_gen_bench.envs import cameras
from vla_gen_bench.envs.proprioception import state_rows
from vla_gen_bench.envs.vector import make_batch
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.rollout import run_episodes
from vla_gen_bench.policies.card import Card, load_card
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.sensing import parse_size, sensors_of
from vla_gen_bench.protocol import STATE, STATE_DIMS, STATE_NAMES, Needs, Observation

BOTH = Needs(state=True, cameras=("external", "wrist"))


class Watcher:
    """An action source that keeps what it is shown."""

    def __init__(self, execute: int = 1) -> None:
        self.execute, self.step, self.seen = execute, 0, []

    def reset(self, instructions, seeds):
        self.step, self.batch = 0, len(instructions)

    @property
    def needs_observation(self) -> bool:
        return self.step % self.execute == 0

    def next_actions(self, observation: Observation | None) -> np.ndarray:
        self.step += 1
        if observation is not None:
            self.seen.append(observation)
        return np.tile(np.float32([0.005, 0, -0.005, 0, 0, 0, -1 if self.step > 2 else 1]), (self.batch, 1))


def card(**fields) -> Card:
    return Card(name="acme", title="ACME", summary="-", factory="acme:Policy", **fields)


@pytest.fixture(scope="module")
def both():
    return make_batch("builtin", 2, sensors=BOTH)


@pytest.fixture(scope="module")
def watched(both):
    """Four steps of two episodes, seen with everything."""
    source = Watcher()
    episodes = run_episodes(both, source, [spec_of(index=0), spec_of(index=1)], 4, needs=BOTH)
    return source.seen, episodes


def test_the_state_has_named_parts_with_units_and_frames():
    assert STATE_DIMS == 17 == len(set(STATE_NAMES))
    assert [(name, part.start, len(part.names), part.unit, part.frame) for name, part in STATE.items()] == [
        ("ee_position", 0, 3, "m", "base"),
        ("ee_quaternion", 3, 4, "1", "base"),
        ("ee_euler", 7, 3, "rad", "base, from straight down"),
        ("joint_angles", 10, 6, "rad", "joint"),
        ("gripper_opening", 16, 1, "1", "gripper"),
    ]


def test_state_of_a_pose_worked_by_hand():
    # Base at (0.147, 0.028, 0.870), turned by 180 degrees about z: world x, y change sign in the base frame.
    half = np.sqrt(0.5)
    link = np.array([[-0.153, 0.128, 1.020, half, 0, half, 0]])  # 90 degrees about the world's y axis
    qpos = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.026, 0.026]])
    [row] = state_rows(link, qpos)
    assert np.allclose(row[:3], [0.300, -0.100, 0.150], atol=1e-6)
    # 180 about z, inverted, times 90 about y: (-k)(cos45 + j sin45) = -k half + i half -> (w, x, y, z)
    assert np.allclose(np.abs(row[3:7]), [0, half, 0, half], atol=1e-6)
    # BridgeData V2's angles: Rz Ry Rx D, extrinsic xyz, D the gripper straight down.
    angles = Rotation.from_euler("xyz", row[7:10].astype(float)).as_matrix() @ [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    assert np.allclose(angles, Rotation.from_quat(np.roll(row[3:7], -1)).as_matrix(), atol=1e-6)
    assert np.allclose(row[10:16], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert row[16] == pytest.approx((0.026 - 0.015) / (0.037 - 0.015))
    assert row.dtype == np.float32


def test_the_policy_sees_the_measured_state(both, watched):
    seen, _ = watched
    state = seen[0].state
    assert state.shape == (2, 17) and state.dtype == np.float32
    view = both.privileged()[0]  # after the last step, one later than the last observation
    [now] = both.proprioception()[:1]
    assert np.allclose(now[:3], view.position, atol=1e-5)
    assert np.allclose(now[10:16], view.qpos[:6], atol=1e-6)
    assert np.allclose(seen[0].part("gripper_opening"), 1.0, atol=0.02)  # it begins open
    assert seen[3].part("gripper_opening")[0, 0] < 0.95  # closing since the third step
    assert not np.allclose(seen[0].part("ee_position"), seen[3].part("ee_position"), atol=1e-3)


def test_asking_for_a_state_that_was_not_declared_names_the_fix():
    with pytest.raises(ValueError, match="needs: {state: true}"):
        example_observation(1).part("ee_position")


def test_both_cameras_are_drawn_and_differ(watched):
    seen, _ = watched
    images = seen[0].images
    assert list(images) == ["external", "wrist"] and images["external"] is seen[0].image
    assert images["wrist"].shape == (2, 240, 320, 3) and images["wrist"].dtype == np.uint8
    assert images["wrist"].std() > 10 and not np.array_equal(images["wrist"], images["external"])
    assert not np.array_equal(images["wrist"][0], seen[3].images["wrist"][0])  # it moves with the arm


def test_the_external_image_does_not_depend_on_other_cameras(watched):
    plain, source = make_batch("builtin"), Watcher()
    [episode] = run_episodes(plain, source, [spec_of(index=0)], 4)
    seen, _ = watched
    assert source.seen[0].state is None and source.seen[0].other_images == {}
    for alone, together in zip(source.seen, seen, strict=True):
        assert np.array_equal(alone.image[0], together.image[0])
    assert episode.row["gripper_target_distance"] == watched[1][0].row["gripper_target_distance"]


def test_what_nobody_needs_is_not_drawn():
    batch, source, needs = (
        make_batch("builtin", sensors=Needs(cameras=("wrist",))),
        Watcher(2),
        Needs(cameras=("wrist",)),
    )
    drawn = []
    env = batch.envs[0]
    original = env._sensor_data
    env._sensor_data = lambda camera: drawn.append(camera) or original(camera)
    run_episodes(batch, source, [simple_spec()], 4, needs=needs)
    assert drawn == ["wrist"] * 3  # the reset, before step 2, and the last image; never the external camera
    assert not source.seen[0].image.any() and source.seen[0].images["wrist"].any()


def test_the_trace_covers_every_camera_that_is_seen(watched, monkeypatch):
    _, episodes = watched
    source = Watcher()
    batch = make_batch("builtin", sensors=BOTH)
    monkeypatch.setattr("vla_gen_bench.envs.wrist.table_seen_from_wrist", lambda link, table: 0 * table)
    [changed] = run_episodes(batch, source, [spec_of(index=0)], 4, needs=BOTH)
    assert changed.row["trace"] != episodes[0].row["trace"]
    monkeypatch.undo()
    [again] = run_episodes(make_batch("builtin", sensors=BOTH), Watcher(), [spec_of(index=0)], 4, needs=BOTH)
    assert again.row == episodes[0].row


def test_images_of_another_size_show_the_same_view():
    import cv2

    small = make_batch("builtin", sensors=Needs(image_size=(256, 256), cameras=("external", "wrist")))
    large = make_batch("builtin", sensors=Needs(cameras=("external", "wrist")))
    image, reference = small.reset([simple_spec()])[0], large.reset([simple_spec()])[0]
    assert image.shape == (256, 256, 3) and small.views["wrist"].shape == (1, 256, 256, 3)
    for ours, theirs in ((image, reference), (small.views["wrist"][0], large.views["wrist"][0])):
        resized = cv2.resize(theirs, (256, 256)).astype(float)
        assert np.abs(resized - ours).mean() < 6  # the same image, drawn narrower; another view differs by far more


def test_camera_matrices_scale_with_the_image():
    assert np.array_equal(cameras.camera_matrix(640, 480), [[623.588, 0, 319.501], [0, 623.588, 239.545], [0, 0, 1]])
    narrow = cameras.camera_matrix(256, 256)
    # 256 / 640 = 0.4 and 256 / 480 = 0.5333: focal lengths 249.4352 and 332.5803
    assert narrow[0, 0] == pytest.approx(249.4352) and narrow[1, 1] == pytest.approx(332.580267, abs=1e-5)
    wrist = cameras.camera_matrix(320, 240, "wrist")
    assert 2 * np.degrees(np.arctan(120 / wrist[1, 1])) == pytest.approx(58)


def test_both_cameras_see_the_same_point_of_the_table_in_the_same_place():
    # A point on the table top, projected into both cameras by hand, must be matched by the homography.
    link = np.array([-0.05, 0.03, 1.05, 0.0, -0.5, 0.0, np.sqrt(0.75)])  # above the table, looking forward and down
    link[3:] /= np.linalg.norm(link[3:])
    point = np.array([-0.25, 0.05, 0.870])
    wrist = project(
        sapien.Pose(link[:3], link[3:]) * cameras._WRIST_POSE, cameras.camera_matrix(320, 240, "wrist"), point
    )
    base = sapien.Pose(cameras.BASE_POSITION, cameras.BASE_QUATERNION)
    outside = project(base * cameras._EXTERNAL_POSE, cameras.camera_matrix(320, 240), point)
    mapping, horizon = cameras.table_homography(link, 320, 240)
    mapped = mapping @ [*wrist, 1]
    assert np.allclose(mapped[:2] / mapped[2], outside, atol=1e-3)
    assert horizon @ [*wrist, 1] > 0 and mapped[2] > 0


def project(pose: sapien.Pose, matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y, z = pose.inv().to_transformation_matrix()[:3] @ [*point, 1]
    assert x > 0, "the point is behind the camera"
    seen = matrix @ [-y, -z, x]
    return seen[:2] / seen[2] - 0.5  # whole numbers are the centres of pixels


def test_the_wrist_camera_looks_past_the_table_at_grey():
    level = np.array([0.0, 0.0, 1.2, 0.0, 0.0, 0.0, 1.0])  # level, so the upper rows look above the horizon
    table = np.full((240, 320, 3), 200, np.uint8)
    seen = cameras.table_seen_from_wrist(level, table)
    # 25 degrees down and 29 up: the horizon is 120 - 216.5 * tan(25) = 19 rows below the top
    assert (seen[:18] == cameras.SURROUNDINGS).all() and (seen[21:] == 200).all()


@pytest.mark.parametrize(
    ("needs", "steps"),
    [
        (Needs(history=3), [[0, 0, 0], [0, 0, 2], [0, 2, 4]]),  # decisions at steps 0, 2, 4
        (Needs(history=3, chunk_frames=True), [[0, 0, 0], [0, 1, 2], [2, 3, 4]]),
    ],
)
def test_history_holds_the_latest_frames(needs, steps):
    batch, source, frames = make_batch("builtin"), Watcher(2), []
    step = batch.step
    batch.step = lambda actions, draw=True: (lambda s: (frames.append(s.images), s)[1])(step(actions, draw))
    first = batch.reset([simple_spec()])
    run_episodes(batch, source, [simple_spec()], 6, needs=needs)
    frames = [first, *frames]
    assert (frames[1] is not None) == needs.every_step  # frames within a chunk are drawn only for those who want them
    for observation, expected in zip(source.seen, steps, strict=True):
        history = observation.history["external"]
        assert history.shape == (1, 3, 240, 320, 3)
        for place, at in enumerate(expected):
            assert np.array_equal(history[:, place], frames[at]), (expected, place)


def test_a_batch_selects_rows_of_everything():
    needs = Needs(state=True, cameras=("external", "wrist"), history=2)
    whole = example_observation(3, needs=needs)
    part = whole.select([2, 0])
    assert np.array_equal(part.state, whole.state[[2, 0]])
    assert np.array_equal(part.images["wrist"], whole.images["wrist"][[2, 0]])
    assert np.array_equal(part.history["wrist"], whole.history["wrist"][[2, 0]])


def test_needs_survive_json():
    for needs in (Needs(), BOTH, Needs(image_size=(224, 224), history=4, chunk_frames=True)):
        assert Needs.from_json(json.loads(json.dumps(needs.to_json()))) == needs
    assert Needs().to_json() == {} and Needs.from_json(None) == Needs()


def test_a_card_declares_what_it_needs(tmp_path):
    file = tmp_path / "card.yaml"
    head = "name: acme\ntitle: ACME\nsummary: One line\nfactory: acme:Policy\n"
    file.write_text(head + "needs: {state: true, cameras: [wrist, external], image_size: 256}\n")
    needs = sensors_of(load_card(file), get_world("builtin"))
    assert needs == Needs(state=True, cameras=("external", "wrist"), image_size=(256, 256))
    file.write_text(head + "needs: {camera: [wrist]}\n")
    with pytest.raises(UserError, match=r"card.yaml: needs.camera: unknown key 'camera'; did you mean 'cameras'"):
        load_card(file)


def test_a_card_without_needs_keeps_its_digest():
    # Worked out before cards had `needs`: the digests of published logs.
    plain = card(training={"method": "sft"})
    assert plain.digest() == card(training={"method": "sft"}, needs={}).digest()
    assert plain.digest() != card(training={"method": "sft"}, needs={"state": True}).digest()


def test_a_sensor_the_world_lacks_is_one_clear_line():
    needy = card(needs={"cameras": ["external", "overhead"]})
    with pytest.raises(
        UserError, match="policy 'acme': its card needs camera 'overhead'; known: external, wrist; world"
    ):
        sensors_of(needy, get_world("builtin"))
    blind = replace(get_world("builtin"), cameras=("external",))
    with pytest.raises(UserError, match="needs camera 'wrist'.*world 'builtin' has external$"):
        sensors_of(card(needs={"cameras": ["wrist"]}), blind)


@pytest.mark.parametrize("text", ["256px", "12", "0x4", "240x", "9999"])
def test_a_bad_image_size_is_named(text):
    with pytest.raises(UserError, match=f"--image-size {text}"):
        parse_size(text)


def test_image_size_is_height_by_width():
    assert parse_size("240x320") == (240, 320) and parse_size("224") == (224, 224)
    assert sensors_of(card(), get_world("builtin"), (240, 320)) == Needs()  # the world's own size is no difference


def test_a_plugin_declares_needs_with_a_class_attribute(cli, tmp_path, monkeypatch):
    (tmp_path / "needy_policy.py").write_text(
        "import numpy as np\n"
        "from vla_gen_bench.policies import ActionSpec, Needs\n"
        "class Needy:\n"
        "    needs = Needs(state=True, cameras=('external', 'wrist'), image_size=(64, 64))\n"
        "    action_spec = ActionSpec()\n"
        "    def reset(self, instructions, seeds): pass\n"
        "    def act(self, observation):\n"
        "        assert observation.state.shape[1] == 17 and observation.images['wrist'].shape[1:] == (64, 64, 3)\n"
        "        return np.tile(np.float32([0, 0, 0, 0, 0, 0, 1]), (len(observation), 1, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    done = cli("policies", "check", "needy_policy:Needy")
    assert done.exit_code == 0, done.stdout + done.stderr


def test_eval_records_the_sensors_and_replays_exactly(cli_process, tmp_path):
    (tmp_path / "needy_policy.py").write_text(
        "import numpy as np\n"
        "from vla_gen_bench.policies import ActionSpec, Needs\n"
        "class Needy:\n"
        "    needs = Needs(state=True, cameras=('external', 'wrist'))\n"
        "    action_spec = ActionSpec(chunk=4)\n"
        "    def reset(self, instructions, seeds): pass\n"
        "    def act(self, observation):\n"
        "        down = np.float32([0, 0, -0.002, 0, 0, 0, 1]) * observation.state[:, 16:, None].clip(0, 1)\n"
        "        return np.repeat(down - 1e-9 * observation.images['wrist'].mean(), 4, 1).astype(np.float32)\n"
    )
    run = ("eval", "--policy", "needy_policy:Needy", "--scenario", "ind", "--episodes", 1, "--seeds", 0, "--workers", 1)
    done = cli_process(*run, "--image-size", "96x128", "--out", "log", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    header = json.loads((tmp_path / "log" / "run.json").read_text())
    assert header["sensors"] == {"state": True, "cameras": ["external", "wrist"], "image_size": [96, 128]}
    again = cli_process("replay", "log", "ind/0/0", cwd=tmp_path)
    assert again.exit_code == 0 and "bit for bit" in again.stdout + again.stderr, again.stdout + again.stderr
    other = cli_process(*run, "--image-size", "64", "--out", "log", cwd=tmp_path)
    assert other.exit_code == 2 and "sensors is" in other.stderr


def test_logs_of_the_usual_sensors_do_not_change(cli, tmp_path):
    done = cli("eval", "--policy", "hold", "--scenario", "ind", "--episodes", 1, "--seeds", 0, "--workers", 1,
               "--out", tmp_path / "log")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "sensors" not in json.loads((tmp_path / "log" / "run.json").read_text())
