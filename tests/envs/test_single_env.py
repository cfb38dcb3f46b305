"""`make_cpu_env`: numpy arrays and plain spaces, as gymnasium and other libraries want them."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from sim import CAMERA, environment, simple_spec

from vla_gen_bench import envs
from vla_gen_bench.envs import make_cpu_env
from vla_gen_bench.envs.pick_place import HORIZON

STILL = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


@pytest.fixture(scope="module")
def single() -> gym.Env:
    env = make_cpu_env(scenario="unseen_object", image_size=(48, 64), render_mode="rgb_array")
    yield env
    env.close()


def test_gymnasium_s_checker_passes_it_as_it_is_without_a_warning(single: gym.Env) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(single)


def test_values_are_numpy_and_python_s_own(single: gym.Env) -> None:
    observation, info = single.reset(seed=3)
    assert set(observation) == {"image", "state"} and observation["image"].shape == (48, 64, 3)
    assert single.observation_space.contains(observation) and isinstance(info["instruction"], str)
    observation, reward, terminated, truncated, info = single.step(STILL)
    assert single.observation_space.contains(observation)
    assert [type(value) for value in (reward, terminated, truncated, info["success"])] == [float, bool, bool, bool]
    assert info["elapsed_steps"] == 1 and info["instruction"].startswith("put ")
    assert np.array_equal(single.render(), observation["image"])


def test_it_is_the_episode_of_the_batched_environment() -> None:
    single = make_cpu_env(observation="image")
    batched = environment("builtin", "rgb")
    spec = simple_spec()
    ours, _ = single.reset(options={"spec": spec})
    theirs, _ = batched.reset(options={"spec": spec})
    for _ in range(3):
        assert np.array_equal(ours, theirs["sensor_data"][CAMERA]["rgb"][0].numpy())
        ours, theirs = single.step(STILL)[0], batched.step(STILL)[0]
    single.close()


def test_an_episode_is_truncated_and_the_state_alone_is_not_drawn() -> None:
    env = make_cpu_env(observation="state")
    env.reset(seed=1)
    flags = [env.step(STILL)[3] for _ in range(HORIZON)]
    assert flags == [False] * (HORIZON - 1) + [True]
    assert env.observation_space.shape == (17,) and env.render() is None
    env.close()
    with pytest.raises(ValueError, match="observation: 'pixels'; expected image, state or both"):
        make_cpu_env(observation="pixels")


def test_environments_in_processes_of_their_own_draw_different_episodes() -> None:
    options = {"observation": "image", "image_size": (48, 64)}
    vector = gym.vector.AsyncVectorEnv([lambda: make_cpu_env(**options)] * 2, context="spawn")
    images, infos = vector.reset()
    assert images.shape == (2, 48, 64, 3) and not np.array_equal(*images)
    assert len(infos["instruction"]) == 2
    _, rewards, *_ = vector.step(np.stack([STILL, STILL]))
    assert rewards.shape == (2,)
    vector.close()


@pytest.mark.parametrize("name", [envs.BASE_ID, "VGB/PickPlace-v1"])
def test_gymnasium_records_videos(tmp_path: Path, name: str) -> None:
    pytest.importorskip("moviepy", reason="needs moviepy, which gymnasium's RecordVideo uses")
    env = gym.wrappers.RecordVideo(gym.make(name, render_mode="rgb_array"), str(tmp_path), disable_logger=True)
    env.reset(seed=0)
    for _ in range(3):
        env.step(STILL)
    env.close()
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 1000


def test_stable_baselines3_learns_in_it(single: gym.Env) -> None:
    library = pytest.importorskip(
        "stable_baselines3", reason="needs stable-baselines3: pip install --no-deps stable-baselines3"
    )
    from stable_baselines3.common.env_checker import check_env as check

    check(single, warn=False)
    learner = library.PPO("MultiInputPolicy", single, n_steps=8, batch_size=8, n_epochs=1, device="cpu")
    learner.learn(8)
    action, _ = learner.predict(single.reset(seed=0)[0])
    assert single.action_space.contains(action)
