"""One action per control step, whatever the chunk."""

import numpy as np
import pytest

from vla_gen_bench.policies import ActionSpec
from vla_gen_bench.policies.chunking import ChunkRunner
from vla_gen_bench.policies.contract import PolicyError, example_observation


class Counting:
    """Query q of an episode returns the chunk dx = (10 q + k) / 1000 for k = 0 .. K-1, in one reused array."""

    def __init__(self, chunk, execute=None, width=7):
        self.action_spec = ActionSpec(chunk=chunk, execute=execute)
        self.width = width

    def reset(self, instructions, seeds):
        self.queries = 0
        self.seen_steps = []
        self.out = np.zeros((len(instructions), self.action_spec.chunk, self.width), np.float32)

    def act(self, observation):
        self.seen_steps.append(int(observation.step[0]))
        self.out[..., 0] = (10 * self.queries + np.arange(self.action_spec.chunk)) / 1000
        self.queries += 1
        return self.out


def run(policy, steps, batch=2):
    runner = ChunkRunner(policy, "policy 'counting'")
    runner.reset(["put a on b"] * batch, range(batch))
    taken = []
    for step in range(steps):
        taken.append(runner.next_actions(example_observation(batch, step) if runner.needs_observation else None))
    return np.stack(taken)


def thousandths(actions):
    return [round(1000 * float(value)) for value in actions[:, 0, 0]]


def test_a_whole_chunk_is_carried_out_before_the_next_query():
    policy = Counting(chunk=3)
    assert thousandths(run(policy, 7)) == [0, 1, 2, 10, 11, 12, 20]
    assert policy.seen_steps == [0, 3, 6]


def test_the_rest_of_a_chunk_beyond_the_execution_horizon_is_dropped():
    policy = Counting(chunk=5, execute=2)
    assert thousandths(run(policy, 5)) == [0, 1, 10, 11, 20]
    assert policy.seen_steps == [0, 2, 4]


def test_a_chunk_of_one_queries_at_every_step():
    policy = Counting(chunk=1)
    assert thousandths(run(policy, 3)) == [0, 10, 20]
    assert policy.seen_steps == [0, 1, 2]


def test_actions_are_one_row_per_episode():
    actions = run(Counting(chunk=2), 1, batch=4)
    assert actions.shape == (1, 4, 7) and actions.dtype == np.float32


def test_reset_drops_what_was_queued():
    policy = Counting(chunk=3)
    runner = ChunkRunner(policy, "policy 'counting'")
    runner.reset(["a"], [0])
    runner.next_actions(example_observation(1))
    runner.reset(["a", "b"], [0, 1])
    assert runner.needs_observation
    assert runner.next_actions(example_observation(2)).shape == (2, 7)


def test_a_bad_chunk_is_an_error_that_names_the_policy():
    with pytest.raises(PolicyError, match=r"policy 'counting': act\(\) returned float32 \[2, 3, 8\]"):
        run(Counting(chunk=3, width=8), 1)


def test_an_observation_is_required_when_the_chunk_is_used_up():
    runner = ChunkRunner(Counting(chunk=2), "policy 'counting'")
    runner.reset(["a"], [0])
    with pytest.raises(ValueError, match="needs the present observation"):
        runner.next_actions(None)
