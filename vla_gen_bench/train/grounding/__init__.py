"""Grounding: still scenes with several things on the table, and where the named ones are.

What holds back listening is the number of distinct scenes, not of frames: a scene here costs milliseconds, a
demonstration half a second. `scenes` draws them, `render` their images, `store` keeps them, `task` asks about them,
`trainer` pretrains on them alone; supervised training takes them in as a second loss (`SftRecipe.grounding`).
"""
