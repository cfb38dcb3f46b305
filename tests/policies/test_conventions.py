"""The convention doctor: a policy that follows the expert is cleared, and each mistake made on purpose is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from demos import OPEN, ORIGIN, SHUT, SIDE, demo

from vla_gen_bench.policies.conventions import Frames, diagnose, mean_errors, take_frames
from vla_gen_bench.protocol import ActionSpec, Needs, Observation
from vla_gen_bench.train.demos.dataset import Writer, load

COUNT, CHUNK = 96, 3
SCALE = np.array([0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0])
QUESTIONS = ["replay", "error", "scale", "gripper", "rotation", "image order", "chunk", "language", "state", "image"]


def frames(seed: int = 0) -> Frames:
    """Frames whose image shows the expert's next actions: value k, dim at row k, column dim, in the red channel."""
    random = np.random.default_rng(seed)
    ahead = random.uniform(-1, 1, (COUNT, CHUNK, 7)).astype(np.float32)
    ahead[..., 6] = np.sign(ahead[..., 6])
    image = random.integers(100, 150, (COUNT, 12, 16, 3)).astype(np.uint8)
    image[:, :CHUNK, :7, 0] = np.round(127.5 + 127.5 * ahead)
    words = tuple(f"put thing {row % 3} on plate" for row in range(COUNT))
    state = random.normal(size=(COUNT, 17)).astype(np.float32)
    observation = Observation(image, words, np.zeros(COUNT, np.int64), state=state)
    return Frames(observation, (ahead[:, 0] * SCALE).astype(np.float32), (ahead * SCALE).astype(np.float32))


class Reader:
    """Reads the actions off the image, and wobbles a little with words and state."""

    def __init__(self, actions=lambda a: a, image=lambda i: i, words: bool = True, state: bool = True) -> None:
        self.actions, self.image, self.words, self.state = actions, image, words, state
        self.action_spec = ActionSpec(chunk=CHUNK)

    def reset(self, instructions, seeds):
        self.instructions = instructions

    def act(self, observation):
        seen = self.image(observation.image)[:, :CHUNK, :7, 0]
        actions = (seen / 127.5 - 1) * SCALE
        if self.words:
            actions[..., :3] += 1e-4 * np.array([hash_of(text) for text in self.instructions])[:, None, None]
        if self.state:
            actions[..., :3] += 1e-4 * observation.state[:, None, :1]
        return self.actions(actions).astype(np.float32)


def hash_of(text: str) -> float:
    return sum(text.encode()) % 7 / 7


def verdicts(policy) -> dict[str, tuple[str, str]]:
    return {result.name: (result.status, result.detail) for result in diagnose(policy, frames())}


def test_a_policy_that_follows_the_expert_is_cleared():
    found = verdicts(Reader())
    assert list(found) == QUESTIONS
    assert {status for status, _ in found.values()} == {"ok"}, found


def flipped(dim):
    def change(actions):
        actions = actions.copy()
        actions[..., dim] *= -1
        return actions

    return change


def swapped(actions):
    return actions[..., [0, 1, 2, 5, 4, 3, 6]]


def zero_to_one(actions):
    return np.concatenate([actions[..., :6], (actions[..., 6:] + 1) / 2], axis=-1)


@pytest.mark.parametrize(
    ("broken", "question", "reason"),
    [
        (Reader(flipped(6)), "gripper", "turned round"),
        (Reader(zero_to_one), "gripper", "a 0..1 gripper"),
        (Reader(lambda a: np.where(np.arange(7) == 6, 1.0, a)), "gripper", "does not tell the two apart"),
        (Reader(flipped(5)), "rotation", "dyaw turns the other way"),
        (Reader(swapped), "rotation", "another order of the axes"),
        (Reader(lambda a: np.concatenate([a[..., :6] * 50, a[..., 6:]], -1).clip(-1, 1)), "scale", "un-normalised"),
        (Reader(lambda a: np.concatenate([a[..., :6] / 50, a[..., 6:]], -1)), "scale", "un-normalised"),
        (Reader(image=lambda i: i[..., ::-1]), "image order", "blue and red swapped"),
        (Reader(image=lambda i: i[:, ::-1]), "image order", "upside down"),
        (Reader(image=lambda i: i[:, :, ::-1]), "image order", "mirrored"),
        (Reader(lambda a: a[:, ::-1]), "chunk", "in reverse"),
        (Reader(lambda a: np.repeat(a[:, :1], CHUNK, 1)), "chunk", "one action repeated"),
        (Reader(words=False), "language", "ignored"),
        (Reader(state=False), "state", "ignored"),
        (Reader(lambda a: 0 * a + SCALE), "image", "ignored"),
    ],
)
def test_a_mistake_made_on_purpose_is_named(broken, question, reason):
    status, detail = verdicts(broken)[question]
    assert status == "note" and reason in detail


def test_a_policy_without_a_clue_is_told_so_and_not_more():
    random = np.random.default_rng(3)
    found = verdicts(Reader(lambda a: random.uniform(-1, 1, a.shape) * SCALE))
    assert found["replay"][0] == "note" and "too little to tell more" in found["replay"][1]
    assert {found[name][0] for name in ("scale", "image order", "rotation")} == {"ok"}


def test_frames_come_from_demonstrations():
    from demos import demos_of

    demos = demos_of([(OPEN, SHUT, SHUT, OPEN), (OPEN, SHUT, OPEN)])
    taken = take_frames(demos, Needs(state=True, cameras=("external", "wrist"), history=2), 7, chunk=3)
    assert len(taken) == 7 and (taken.actions == demos.actions).all()
    assert taken.observation.step.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert np.isnan(taken.ahead[:, -1, 0]).tolist() == [False, False, True, True, False, True, True]
    assert taken.observation.history["wrist"].shape[:2] == (7, 2)
    assert np.allclose(taken.observation.part("ee_position")[:, 0], [0, 0.01, 0.02, 0.03, 0, 0.01, 0.02])


def test_the_error_is_the_mean_over_frames_and_axes():
    truth = np.zeros((2, 7), np.float32)
    said = np.array([[0.01, -0.02, 0.03, 0, 0, 0.3, 1], [0, 0, 0, 0.1, 0.2, 0, 0]], np.float32)
    # translation (0.01 + 0.02 + 0.03) / 6, rotation (0.3 + 0.1 + 0.2) / 6, gripper 1 / 2
    assert mean_errors(said, truth) == pytest.approx({"translation": 0.01, "rotation": 0.1, "gripper": 0.5})


def collected(folder, side: int = SIDE, **changes):
    """Two demonstrations with a state and a wrist camera whose images are the negatives of the external ones."""
    writer = Writer(folder, side, {**ORIGIN, "side": side}, wrist=True)
    for index in range(2):
        item = demo(index, side=side)
        observed = np.arange(len(item) * 17, dtype=np.float32).reshape(-1, 17) / 100 + index
        writer.add(replace(item, observed=observed, wrist=255 - item.images, **changes))
    writer.finish()
    return writer


def test_frames_hold_the_wrist_camera_and_the_state_of_the_data(tmp_path):
    collected(tmp_path)
    needs = Needs(state=True, cameras=("external", "wrist"))
    taken = take_frames(load(tmp_path, world="builtin", wrist=True), needs, 8, chunk=1)
    assert taken.missing == ()
    stored = np.arange(4 * 17, dtype=np.float32).reshape(4, 17) / 100
    assert np.array_equal(taken.observation.state, np.concatenate([stored, stored + 1]))
    external, wrist = (taken.observation.images[camera].astype(int) for camera in ("external", "wrist"))
    # x264 at this quality is off by a few levels in noise
    assert np.abs(external + wrist - 255).mean() < 2 and np.abs(external - wrist).mean() > 50


def test_frames_have_the_size_the_policy_needs(tmp_path):
    collected(tmp_path)
    needs = Needs(cameras=("external", "wrist"), image_size=(24, 40))
    taken = take_frames(load(tmp_path, world="builtin", wrist=True), needs, 3, chunk=1)
    assert taken.observation.image.shape == taken.observation.images["wrist"].shape == (3, 24, 40, 3)
    assert taken.missing == ("images of 32x32 (resized to 24x40)",)


def test_what_the_data_lack_is_reported():
    from demos import demos_of

    demos = demos_of([(OPEN, SHUT)])
    taken = take_frames(demos, Needs(state=True, cameras=("external", "wrist"), history=2), 2, chunk=1)
    assert [part.split(" (")[0] for part in taken.missing] == ["no wrist camera", "no joint angles", "no history"]
    wanting = replace(frames(), missing=("no wrist camera (black images)",))
    first = diagnose(Reader(), wanting)[0]
    assert (first.name, first.status, first.detail) == (
        "data", "note", "the data have no wrist camera (black images)",
    )  # fmt: skip


def test_joined_demonstrations_keep_state_and_wrist_camera_if_all_have_them(tmp_path):
    from demos import demos_of

    from vla_gen_bench.train.demos.joined import joined

    collected(tmp_path)
    both = joined([load(tmp_path, wrist=True)] * 2, ["a", "b"])
    assert both.observed.shape == (16, 17) and both.wrist.shape == (16, SIDE, SIDE, 3)
    assert np.array_equal(both.wrist[11], load(tmp_path, wrist=True).wrist[3])
    mixed = joined([load(tmp_path, wrist=True), demos_of([(OPEN, SHUT)])], ["a", "b"])
    assert mixed.observed is None and mixed.wrist is None


@pytest.mark.parametrize(
    ("policy", "options", "says"),
    [
        ("expert", ["--replay", "/no/such/data"], "sees the simulator's state, which demonstrations lack"),
        ("hold", ["--frames", "20"], "add --replay DATA, or leave it out"),
    ],
)
def test_options_that_would_do_nothing_are_refused(cli, policy, options, says):
    done = cli("policies", "check", policy, *options)
    assert done.exit_code == 2 and says in done.stderr


def test_check_replays_demonstrations(cli, tmp_path):
    from demos import written

    written(tmp_path, [demo(0), demo(1)])
    done = cli("policies", "check", "hold", "--replay", tmp_path)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "note   image: ignored" in done.stdout and "note   language: ignored" in done.stdout
    done = cli("policies", "check", "hold", "--replay", tmp_path / "nowhere")
    assert done.exit_code == 2 and "not found" in done.stderr
