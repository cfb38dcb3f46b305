"""vla-gen-bench: how vision-language-action policies generalise, one shift at a time.

```python
import vla_gen_bench as vgb

log = vgb.evaluate("openvla-ppo", "execution", episodes=16)   # or an object with reset, act and action_spec
log.frame().groupby("scenario").success_at_end.mean()
print(vgb.compare([log, "runs/openvla-sft/execution-builtin"]))
```

Names are imported when they are first used: `import vla_gen_bench` takes milliseconds.
"""

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla_gen_bench.envs.making import make_env
    from vla_gen_bench.episodes.suite import Suite, load_suite
    from vla_gen_bench.errors import UserError
    from vla_gen_bench.eval.api import evaluate
    from vla_gen_bench.log.folder import EvalLog, read_log
    from vla_gen_bench.policies.registry import load_policy
    from vla_gen_bench.protocol import ActionSpec, Observation, Policy
    from vla_gen_bench.report.api import Report, SeedReport, compare, compare_seeds

__version__ = "0.1.0"
__all__ = [
    "ActionSpec",
    "EvalLog",
    "Observation",
    "Policy",
    "Report",
    "SeedReport",
    "Suite",
    "UserError",
    "compare",
    "compare_seeds",
    "evaluate",
    "load_policy",
    "load_suite",
    "make_env",
    "read_log",
]
_MODULES = {
    "ActionSpec": "protocol",
    "EvalLog": "log.folder",
    "Observation": "protocol",
    "Policy": "protocol",
    "Report": "report.api",
    "SeedReport": "report.api",
    "Suite": "episodes.suite",
    "UserError": "errors",
    "compare": "report.api",
    "compare_seeds": "report.api",
    "evaluate": "eval.api",
    "load_policy": "policies.registry",
    "load_suite": "episodes.suite",
    "make_env": "envs.making",
    "read_log": "log.folder",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if (
    sys.argv[:1] == ["-m"] and any(word in (__name__, f"-m{__name__}") for word in sys.orig_argv)
    or sys.argv[:1] and sys.argv[0].endswith("/vgb")
):  # fmt: skip
    # Until the command can report "interrupted", Ctrl-C ends it without a traceback of imports.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
