"""What starts: the command ``similitude``, ``python -m similitude``, and torchrun's processes."""

import os
import sys

INTERRUPTED = 130  # what a shell calls a command that Ctrl-C has ended


def main() -> None:
    """The command line; Ctrl-C ends it without a traceback, even while it is still loading."""
    try:
        from similitude.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        _end()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end()
        raise


def _end() -> None:
    # Not sys.exit: Python kills itself with SIGINT at its end if the interrupt once passed through
    # exec, as of a dataclass being made while a module loads, although it has been caught since.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
