"""Learning from reward: PPO, GRPO and DPO over one kind of rollout."""
