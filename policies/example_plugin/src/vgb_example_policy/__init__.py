"""An example of a third-party policy package for vla-gen-bench."""
