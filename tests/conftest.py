"""Settings for all tests."""

import os
import signal

from hypothesis import settings

# A wall-clock deadline fails on a busy machine and proves nothing on a quiet one.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

# What a program that we start writes to a pipe has to be flushed by itself, also where
# the machine would have flushed it.
os.environ.pop("PYTHONUNBUFFERED", None)

# A shell that runs us in the background ignores Ctrl-C for us, and so would all that we
# start. The tests are about programs that somebody started at a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
