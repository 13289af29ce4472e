"""`python -m fedsynth.federation.deploy.parent_guard PARENT PROGRAM ...` becomes PROGRAM, which the system ends with
PARENT.

So nothing that the server started outlives it, even when it is killed. Linux only; elsewhere it is a plain start.
"""

import ctypes
import os
import signal
import sys

_PARENT_DEATH_SIGNAL = 1


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it died while this one started
            raise SystemExit(128 + signal.SIGTERM)
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()
