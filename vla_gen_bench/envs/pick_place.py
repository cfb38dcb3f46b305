"""`PickPlaceEnv`: realises any `EpisodeSpec` in ManiSkill."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import sapien
import torch
from gymnasium.utils.seeding import np_random
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs.pose import Pose
from mani_skill.utils.structs.types import SceneConfig, SimConfig

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.assets.world import get_world
from vla_gen_bench.envs import heap, robot, scene
from vla_gen_bench.envs.admission import check_specs, check_views
from vla_gen_bench.envs.cameras import UIDS
from vla_gen_bench.envs.compositing import composite, foreground_mask
from vla_gen_bench.envs.effects import RunningEffects, scene_setups
from vla_gen_bench.envs.effects.camera import aim_cameras, table_image
from vla_gen_bench.envs.effects.shadows import CastShadows
from vla_gen_bench.envs.judge import Judge
from vla_gen_bench.envs.poses import BodyPoses
from vla_gen_bench.envs.privileged import PrivilegedState, collision_points, privileged_state
from vla_gen_bench.envs.wrist import WristView
from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.errors import UserError
from vla_gen_bench.protocol import EXTERNAL, WRIST

SIM_FREQUENCY, CONTROL_FREQUENCY = 500, 5  # Hz: 100 physics substeps per control step
HORIZON = 80  # control steps, 16 s
SETTLE_SUBSTEPS = 650  # 1.3 s
SAFE_HEIGHT_M = 1.0  # the robot waits this far above its pose while the objects settle
LOAD_POSE = sapien.Pose([0.127, 0.060, 0.85], robot.BASE_QUATERNION)
WITHOUT_IMAGES = ("none", "state", "state_dict")  # modes of observation
COLLECT_EVERY = 32  # resets between garbage collections, each about 0.2 s


class PickPlaceEnv(BaseEnv):
    """Pick up the named object and put it on the named receptacle.

    Observations: `obs["sensor_data"]["3rd_view_camera"]["rgb"]`, uint8 [B, H, W, 3], the camera image composited
    over the table image with the spec's image effects; with `obs_mode="rgb+segmentation"` also "segmentation". The same
    for "wrist_camera" if `cameras` has "wrist". `reset` returns the sentences in `info["instruction"]`.
    Actions: float32 [B, 7] = (dx, dy, dz, droll, dpitch, dyaw, gripper): metres and radians added to the previous
    *target* pose in the robot's base frame, R_t = Rx Ry Rz R_(t-1), gripper +1 open .. -1 closed.
    An episode never terminates; `make_env` truncates it at the suite's horizon. Success at its last step is
    `info["success"]` there.
    Reward ("sparse"): 0.1 for the first grasp, 0.1 for the first hold of 5 steps, 1.0 for being placed after a
    grasp, revoked when the object leaves. Each reset builds a new scene, so an episode depends, bit for bit, only on
    its spec and the actions, not on earlier episodes.

    Args:
        world: Name of the world, which sets pack, camera size and shader.
        suite, scenario: Source of the episode in a reset without a spec.
        cameras: Names out of `protocol.CAMERAS`.
        image_size: Height and width of the images in pixels, 1 to 2048; None = the world's.
        models: Registry of loaded models, shared by the environments of a process; None = a new one.
        **kwargs: ManiSkill's `BaseEnv` arguments.

    Attributes:
        draws: If False, a step renders nothing and returns an empty observation; all else is unchanged.
        viewed_by: The camera whose image is being completed, or was last.
    """

    viewed_by = EXTERNAL

    SUPPORTED_REWARD_MODES = ["sparse", "none"]
    SUPPORTED_ROBOTS = None
    metadata = {**BaseEnv.metadata, "render_fps": CONTROL_FREQUENCY}

    def __init__(
        self,
        *args,
        world: str = "builtin",
        suite: str = "all",
        scenario: str = "ind",
        cameras: Sequence[str] = (EXTERNAL,),
        image_size: tuple[int, int] | None = None,
        models: scene.LoadedModels | None = None,
        **kwargs,
    ) -> None:
        self.world = get_world(world)
        self.pack = open_pack(world)
        self.cameras = tuple(cameras)
        self.image_size = tuple((self.world.height, self.world.width) if image_size is None else image_size)
        check_views(self.cameras, self.image_size)
        self._suite_name, self._scenario_name = suite, scenario
        self._scenario = None
        self._resets = 0
        self._models = models or scene.LoadedModels()
        self._renderer: object = None
        self.draws = True
        heap.settle()
        urdf = self.pack.path(self.pack.catalog.robot_urdf)
        kwargs.setdefault("obs_mode", "rgb")
        if not torch.cuda.is_available():  # images that stay on a CUDA device could not be read
            kwargs.setdefault("render_backend", "cpu")
        height, width = self.image_size
        kwargs.setdefault("robot_uids", robot.agent_class(urdf, width, height, self.world.shader, self.cameras))
        super().__init__(*args, **kwargs)
        # ManiSkill's constructor resets with seed 2022; discarded, or every process would draw the same episodes.
        self._main_seed = self._np_random = self._np_random_seed = None

    @property
    def _default_sim_config(self) -> SimConfig:
        physics = SceneConfig(
            solver_position_iterations=self.world.physics.position_iterations,
            contact_offset=self.world.physics.contact_offset,
        )
        return SimConfig(sim_freq=SIM_FREQUENCY, control_freq=CONTROL_FREQUENCY, spacing=20, scene_config=physics)

    # ---- reset ---------------------------------------------------------------------------------------------

    def reset(self, seed: int | list[int] | None = None, options: dict[str, Any] | None = None):
        """Starts an episode in a fresh scene.

        Args:
            seed: ManiSkill's; it decides which episode is drawn when `options` names no spec. None continues from the
                previous seed; if there was none, episodes differ from process to process.
            options: `{"spec": EpisodeSpec}` or `{"specs": [one per environment]}` realises exactly these.
        """
        options = dict(options or {})
        rows = options.pop("env_idx", None)
        if rows is not None and len(rows) != self.num_envs:
            raise UserError(
                f"a reset of {len(rows)} of {self.num_envs} environments: each reset builds the scene they share; "
                "reset all of them, or use EnvBatch.reset_rows"
            )
        self._set_main_rng(seed)
        if seed is not None:  # gymnasium's own generator, which ManiSkill does not seed
            self._np_random, self._np_random_seed = np_random(int(np.atleast_1d(seed)[0]))
        self._specs = self._specs_of(options, seed)
        options["reconfigure"] = True
        observation, info = super().reset(seed=seed, options=options)
        return observation, {**info, "instruction": list(self.instructions)}

    def _specs_of(self, options: dict[str, Any], seed: int | list[int] | None) -> list[EpisodeSpec]:
        one, specs = options.pop("spec", None), options.pop("specs", None)
        specs = specs if one is None else [one]
        if specs is None:
            specs = self._draw(seed)
        check_specs(specs, self.num_envs, self.pack)
        return list(specs)

    def _draw(self, seed: int | list[int] | None) -> list[EpisodeSpec]:
        """Draws one episode per environment from the scenario, outside the seeds evaluations use."""
        from vla_gen_bench.episodes.suite import draw_for_env, load_suite

        if self._scenario is None:
            self._scenario = load_suite(self._suite_name).select([self._scenario_name])[0]
        if seed is None:
            seeds = np.atleast_1d(self._batched_main_rng.randint(2**31))
        else:
            seeds = np.resize(np.atleast_1d(np.asarray(self._main_seed)), self.num_envs)
        return [draw_for_env(self._scenario, self.world.name, int(value)) for value in seeds]

    @property
    def specs(self) -> list[EpisodeSpec]:
        """The specs of the running episodes, one per environment."""
        return self._specs

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instruction the policy is given, one sentence per environment."""
        return tuple(spec.instruction for spec in self._specs)

    def get_language_instruction(self) -> list[str]:
        """SimplerEnv's name for `instructions`."""
        return list(self.instructions)

    def _clear(self) -> None:
        """As ManiSkill's, but frees the old scene without a garbage collection, which costs more than a reset."""
        self._close_viewer()
        self._sensors, self._human_render_cameras, self._hidden_objects = {}, {}, []
        self._things, self._effects, self._points, self.judge = [], None, {}, None
        self._camera_params = self._table = self._wrist = self._poses = self._shadows = None
        vars(self).pop("segmentation_id_map", None)  # ManiSkill's map of the old bodies would keep their textures alive
        agent = getattr(self, "agent", None)  # none before the first reset
        scene.release(self.scene, getattr(agent, "robot", None), agent)
        self.agent, self.scene = None, None
        self._models.make_room(self.pack, self._specs, self)
        self._resets += 1
        if self._sim_device.is_cuda() or self._resets % COLLECT_EVERY == 0:  # GPU memory must be freed at once
            gc.collect()

    def _setup_scene(self) -> None:
        if self._sim_device.is_cuda() or self._render_device is None or self._render_device.is_cuda():
            super()._setup_scene()
            return
        # ManiSkill requests the render device "cpu", which cannot render; without an argument SAPIEN finds lavapipe.
        make = sapien.render.RenderSystem
        sapien.render.RenderSystem = lambda device: make()
        try:
            super()._setup_scene()
        finally:
            sapien.render.RenderSystem = make

    def _load_agent(self, options: dict) -> None:
        super()._load_agent(options, LOAD_POSE)

    def _load_scene(self, options: dict) -> None:
        scene.finish_robot_surface(self.agent.robot)
        self.setups = scene_setups(self, self._specs)
        self._table = scene.build_table(self.scene, self.setups)
        self._things = scene.build_things(self.scene, self.pack, self._specs, self.setups)
        self._models.note(self.pack, self._things)
        self.agent.swift = self._draws_swiftly()
        if self.scene.can_render():
            self._renderer = self._renderer or scene.renderer_handle()

    def _draws_swiftly(self) -> bool:
        """Whether only colours and segmentation of opaque bodies are rendered, on the CPU."""
        wanted = self.obs_mode_struct.visual
        more = wanted.depth or wanted.position or wanted.normal or wanted.albedo
        software = self.scene.can_render() and self.scene.backend.render_backend == "sapien_cpu"
        return software and not more and scene.drawn_swiftly(self.scene, self.world.shader)

    def _load_lighting(self, options: dict) -> None:
        scene.add_lights(self.scene, self.setups)

    def _setup_sensors(self, options: dict) -> None:
        super()._setup_sensors(options)
        if EXTERNAL in self.cameras:
            aim_cameras(self._sensors[robot.CAMERA].camera, self.setups)

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        """Places all bodies as the specs state and lets them settle, the same on every backend."""
        arm = self.agent.robot
        base, quaternion = np.array(robot.BASE_POSITION), robot.BASE_QUATERNION
        arm.set_pose(sapien.Pose(base + [0, 0, SAFE_HEIGHT_M], quaternion))
        for thing in self._things:
            poses = torch.tensor([p.position + p.quaternion for p in thing.placed], device=self.device)
            thing.actor.set_pose(Pose.create(poses))
        self._apply_state()
        self.simulate(SETTLE_SUBSTEPS)
        arm.set_pose(sapien.Pose(base, quaternion))
        arm.set_qpos(self._initial_qpos())
        arm.set_qvel(torch.zeros_like(arm.get_qvel()))
        self._apply_state()
        self._start_task()

    def _initial_qpos(self) -> torch.Tensor:
        offsets = torch.tensor([spec.joint_offset + (0.0, 0.0) for spec in self._specs], dtype=torch.float64)
        qpos = torch.tensor(robot.INITIAL_QPOS, dtype=torch.float64) + offsets
        return qpos.to(torch.float32).to(self.device)

    def _start_task(self) -> None:
        self.judge = Judge(self.scene, self.agent, self._things)
        self._poses = BodyPoses(self._things, self.num_envs, self.gpu_sim_enabled)
        views = zip(self._specs, self.setups, strict=True)
        tables = [table_image(self.pack, spec.table, setup, self.image_size) for spec, setup in views]
        self._tables = torch.stack(tables).to(self.device)
        self._background = self._table.per_scene_id
        self._shadows = CastShadows(self)
        self._effects = RunningEffects(self, self._specs)
        self._wrist = WristView(self) if WRIST in self.cameras else None

    # ---- step ----------------------------------------------------------------------------------------------

    def step(self, action: Any) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """As ManiSkill's, but success terminates nothing: it may be lost again, and the last step counts."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, torch.zeros_like(terminated), truncated, info

    def simulate(self, substeps: int) -> None:
        """Advances the physics; nothing but PhysX runs between substeps."""
        step = self.scene.px.step
        for _ in range(substeps):
            step()
        if self.gpu_sim_enabled:
            self.scene._gpu_fetch_all()

    def _apply_state(self) -> None:
        """Uploads changed poses and joint angles to a GPU simulation; on the CPU they already apply."""
        if self.gpu_sim_enabled:
            self.scene._gpu_apply_all()
            self.scene.px.gpu_update_articulation_kinematics()
            self.scene._gpu_fetch_all()

    def _step_action(self, action):
        if action is not None:
            action = torch.as_tensor(action, dtype=torch.float32, device=self.device).reshape(self.num_envs, -1)
            if not bool(torch.isfinite(action).all()):  # before the effects: latency would hide it
                raise ValueError("the action is not finite")
            self.agent.set_action(self._effects.actions(action, self._elapsed_steps + 1))
            if self.gpu_sim_enabled:
                self.scene.px.gpu_apply_articulation_target_position()
        self.simulate(self._sim_steps_per_control)
        steps = self._elapsed_steps + 1
        self._effects.change_state(steps)
        self.judge.update(steps)
        return action

    @property
    def things(self) -> list[scene.Thing]:
        """The bodies on the table: target, receptacle, distractors."""
        return self._things

    def privileged_state(self, row: int = 0) -> PrivilegedState:
        """Returns the simulator's true state of environment `row`; for privileged policies and tests."""
        return privileged_state(self, row)

    def state_vectors(self) -> list[np.ndarray]:
        """Returns per environment float32 [8 + 7 N]: joint angles, then position and quaternion of its N bodies."""
        poses = self._poses.read().cpu().numpy()  # [N, B, 7]
        vectors = []
        for row, qpos in enumerate(self.agent.robot.get_qpos().cpu().numpy()):
            there = [row in thing.rows for thing in self._things]
            vectors.append(np.concatenate([qpos, poses[there, row].reshape(-1)]))
        return vectors

    def cached_points(self, thing: scene.Thing, row: int) -> np.ndarray:
        """Returns the vertices [N, 3] of a body's collision pieces in its own frame."""
        key = (thing.role, row)
        if key not in self._points:
            self._points[key] = collision_points(thing, row)
        return self._points[key]

    def _thing(self, role: str) -> scene.Thing:
        return next(thing for thing in self._things if thing.role == role)

    # ---- task ----------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, torch.Tensor]:
        """Returns the task's flags and distances; reading them changes nothing."""
        return self.judge.info()

    def compute_sparse_reward(self, obs: Any, action: torch.Tensor, info: dict) -> torch.Tensor:
        return self.judge.progress.reward

    # ---- observation ---------------------------------------------------------------------------------------

    def _get_obs_sensor_data(self, apply_texture_transforms: bool = True) -> dict:
        self.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        self.capture_sensor_data()
        return {UIDS[camera]: self._sensor_data(camera) for camera in self.cameras}

    def _sensor_data(self, camera: str) -> dict[str, torch.Tensor]:
        wanted = self.obs_mode_struct.visual
        data = self._sensors[UIDS[camera]].get_obs(
            rgb=True,
            depth=wanted.depth,
            position=wanted.position,
            segmentation=True,
            normal=wanted.normal,
            albedo=wanted.albedo,
        )
        if self.backend.render_device.is_cuda():
            torch.cuda.synchronize()  # as ManiSkill does: physics starts after the images are finished
        data = {name: picture.to(self.device) for name, picture in data.items()}  # a GPU may render for CPU physics
        data["rgb"] = self._picture(data["rgb"], data["segmentation"], camera)
        if not wanted.segmentation:
            del data["segmentation"]
        return data

    def foreground(self, segmentation: torch.Tensor) -> torch.Tensor:
        """Returns bool [B, H, W]: pixels of an observation's "segmentation" that the table image does not cover."""
        return foreground_mask(segmentation, self._background)

    def _picture(self, render: torch.Tensor, segmentation: torch.Tensor, camera: str) -> torch.Tensor:
        self.segmentation, self.viewed_by, foreground = segmentation, camera, self.foreground(segmentation)
        outside = camera == EXTERNAL
        tables, effects = (self._tables, self._effects) if outside else (self._wrist.tables(), self._wrist.effects)
        images = composite(render, foreground, tables)
        self._shadows.cast(images, segmentation, foreground, self._sensors[UIDS[camera]].camera)
        return effects.images(images, foreground)

    def get_obs(self, info: dict | None = None, unflattened: bool = False) -> dict:
        observed = self.draws and self.obs_mode not in WITHOUT_IMAGES
        shown = self.obs_mode not in WITHOUT_IMAGES or self.render_mode is not None  # now or later, to anyone
        if shown and not observed and self._effects.need_image(self._elapsed_steps):
            self._get_obs_sensor_data()
        return super().get_obs(info, unflattened) if self.draws else {}

    def _get_obs_with_sensor_data(self, info: dict, apply_texture_transforms: bool = True) -> dict:
        """As ManiSkill's, without its empty "extra": gymnasium's checker allows no empty space."""
        observation = super()._get_obs_with_sensor_data(info, apply_texture_transforms)
        if not self.obs_mode_struct.state:  # in state mode ManiSkill flattens it into "state" itself
            del observation["extra"]
        return observation

    def render(self) -> Any:
        """As ManiSkill's; for a single environment an array, uint8 [H, W, 3], as gymnasium's video wrappers expect."""
        images = super().render()
        single = self.render_mode == "rgb_array" and self.num_envs == 1
        return images[0].cpu().numpy() if single else images

    def render_rgb_array(self, camera_name: str | None = None) -> torch.Tensor:
        """Returns what the policy sees, uint8 [B, H, W, 3], for `render_mode="rgb_array"` and video wrappers."""
        return self._get_obs_sensor_data()[UIDS[self.cameras[0]]]["rgb"]

    def get_sensor_params(self) -> dict:
        """Computes parameters once per episode, because the external camera is mounted on the fixed base."""
        if self._camera_params is None or self.cameras != (EXTERNAL,):
            self._camera_params = super().get_sensor_params()
        return {
            camera: {name: value.clone() for name, value in rows.items()}
            for camera, rows in self._camera_params.items()
        }

    def measured(self, states: np.ndarray) -> np.ndarray:
        """Returns the robots' states [B, N] as the policy receives them; an effect may hide them."""
        return self._effects.measured(states)

    def role_mask(self, segmentation: torch.Tensor, role: str) -> torch.Tensor:
        """Returns bool [B, H, W]: pixels of the body in `role`, or of the robot for "robot"."""
        if role == "robot":
            ids = torch.stack([link.per_scene_id for link in self.agent.robot.links], dim=1)  # [B, links]
        else:
            thing = self._thing(role)
            ids = thing.over(self.num_envs, thing.actor.per_scene_id[:, None], -1)
        return (segmentation == ids[:, None, None]).any(dim=-1)
