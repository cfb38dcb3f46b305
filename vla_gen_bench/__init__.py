"""vla-gen-bench: how vision-language-action policies generalise, one shift at a time."""

import signal
import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"] or sys.argv[:1] and sys.argv[0].endswith("/vgb"):
    # The command starts: until it can say "interrupted", Ctrl-C ends it without a traceback of imports.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
