"""vla-gen-bench: how vision-language-action policies generalise, one shift at a time."""

__version__ = "0.1.0"
