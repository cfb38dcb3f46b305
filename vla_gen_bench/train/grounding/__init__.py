"""Grounding: still scenes with several things on the table, with the places of the named ones.

The number of distinct scenes limits language use, not the number of frames. A scene costs milliseconds here, a
demonstration half a second. `scenes` samples them, `render` renders them, `store` saves them, `task` queries them,
`trainer` pretrains on them alone; supervised training can add them as a second loss (`SftRecipe.grounding`).
"""
