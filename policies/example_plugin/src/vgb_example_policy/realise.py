"""What the effects of `effects.py` do in the simulator. Each is built per episode, for the `rows` that ask for it."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

WORKSPACE = np.array([0.307, 0.028, 0.0])  # metres on the base link: the middle of the table's workspace


class Orbit:
    """A scene effect: the camera goes round the workspace, about the vertical, and keeps looking at it."""

    kind = "scene"

    def __init__(self, env, rows, params):
        self._turns = [Rotation.from_euler("z", row["degrees"], degrees=True) for row in params]

    def apply(self, setups):
        return [
            replace(setup, camera=self._moved(setup.camera, turn))
            for setup, turn in zip(setups, self._turns, strict=True)
        ]

    def _moved(self, camera, turn):
        position = WORKSPACE + turn.apply(np.array(camera.position) - WORKSPACE)
        attitude = turn * Rotation.from_quat(camera.quaternion, scalar_first=True)
        return replace(
            camera, position=tuple(position.tolist()), quaternion=tuple(attitude.as_quat(scalar_first=True).tolist())
        )


class Deadband:
    """An action effect: a motion shorter than so many metres is not carried out at all."""

    kind = "action"

    def __init__(self, env, rows, params):
        self._metres = [row["metres"] for row in params]

    def apply(self, actions, steps):
        for action, metres in zip(actions, self._metres, strict=True):
            if action[:3].norm() < metres:
                action[:3] = 0
        return actions


class Nudge:
    """A state effect: after control step `step` the target gets a speed along the world's y axis."""

    kind = "state"

    def __init__(self, env, rows, params):
        self._env, self._rows, self._params = env, rows, params

    def apply(self, steps):
        target = next(thing for thing in self._env.things if thing.role == "target").actor
        for row, step, params in zip(self._rows, steps.tolist(), self._params, strict=True):
            if step == params["step"]:
                velocity = target.linear_velocity.clone()
                velocity[row, 1] += params["speed"]
                target.set_linear_velocity(velocity)


class Stripes:
    """An image effect: every so-manieth line of the image is black; `seed` decides where they begin."""

    kind = "image"

    def __init__(self, env, rows, params):
        self._params = params

    def apply(self, images, foreground):
        for image, params in zip(images, self._params, strict=True):
            image[params["seed"] % params["every"] :: params["every"]] = 0
        return images
