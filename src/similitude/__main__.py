"""What starts: the command ``similitude``, ``python -m similitude``, and torchrun's processes."""

import sys


def main() -> None:
    """The command line; Ctrl-C ends it without a traceback, even while it is still loading."""
    try:
        from similitude.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
