"""The pretraining world: colourful toys, receptacles, tables and overlay patterns that no evaluation uses.

`openvla-base` learns general features of robots, images and words here, as OpenVLA did on other data before the paper
fine-tuned it. Split "train" is for pretraining. Split "unseen" is the **development split**: `vgb eval --world
pretrain` runs any suite on it, so model sizes, budgets and data can be chosen without using evaluated pools.

Families and parameters differ from those of world `builtin`; a test verifies that nothing here is equal or near to an
unseen asset there. The 16 training objects and the plate of `builtin` are part of split "train": they are not held
out, and a policy can only learn their names from scenes with several of them.
"""
