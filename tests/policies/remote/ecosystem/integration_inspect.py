"""Runs in this project's environment, inspect-robots' beside it: its conformance checks, then an episode's start."""

import json
import sys

sys.path += [sys.argv[1], sys.argv[2]]

import numpy as np  # noqa: E402
from inspect_robots.compat import check_compatibility  # noqa: E402
from inspect_robots.conformance import assert_embodiment_conformant  # noqa: E402
from inspect_robots.types import Action  # noqa: E402
from inspect_robots_widowx.config import WidowXConfig, action_box, observation_space  # noqa: E402
from inspect_robots_widowx.policy import OpenVLAPolicy  # noqa: E402
from vgb_inspect_robots import VgbEmbodiment  # noqa: E402

from vla_gen_bench import runtime  # noqa: E402

runtime.prepare(1)
body = VgbEmbodiment(scenario="ind")
assert_embodiment_conformant(body.info)
real = action_box(WidowXConfig())
same = body.info.action_space.semantics == real.semantics and np.array_equal(body.info.action_space.low, real.low)
report = check_compatibility(OpenVLAPolicy(), body)
first = body.reset(None, seed=3)
opened = body.step(Action(data=np.array([0, 0, 0, 0, 0, 0, 1.0])))
closed = [body.step(Action(data=np.array([0, 0, -0.01, 0, 0, 0, 0.0]))) for _ in range(4)][-1]
print(
    json.dumps(
        {
            "same": bool(same and body.info.observation_space == observation_space(include_state=True)),
            "errors": [
                str(issue) for issue in report.issues if "error" in str(getattr(issue, "severity", issue)).lower()
            ],
            "image": list(first.images["external_cam"].shape),
            "instruction": first.instruction,
            "grip": [float(o.observation.state["eef_pose"][6]) for o in (opened, closed)],
        }
    )
)
