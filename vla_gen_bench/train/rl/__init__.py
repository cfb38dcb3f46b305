"""Learning from reward: PPO, GRPO and DPO with a shared rollout."""
