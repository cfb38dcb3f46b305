"""`python -m vla_gen_bench` is `vgb`."""

from vla_gen_bench.cli import main

if __name__ == "__main__":
    main()
