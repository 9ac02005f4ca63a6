"""What starts: the command ``similitude``, ``python -m similitude``, and torchrun's processes."""

import codecs
import io
import os
import signal
import sys
import unicodedata

from similitude.listener import INTERRUPTED, TERMINATED, end_anywhere


def main() -> None:
    """The command line; Ctrl-C and SIGTERM end it without a traceback, even while it is loading."""
    signal.signal(signal.SIGTERM, end_anywhere)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, end_anywhere)
    codecs.register_error("similitude.spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="similitude.spelled")
    try:
        from similitude.cli import main as command_line

        command_line()
        return
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as ended:
        if ended.code not in (INTERRUPTED, TERMINATED):
            raise
        code = ended.code
    # Not sys.exit: Python kills itself with SIGINT at its end if the interrupt once passed through
    # exec, as of a dataclass being made while a module loads, although it has been caught since.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Plain letters for what a terminal has no signs for, as one of ASCII has none for ±."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].replace("±", "+-")
    plain = (unicodedata.normalize("NFKD", s).encode("ascii", "ignore").decode() for s in text)
    return "".join(p or "?" for p in plain), error.end


if __name__ == "__main__":
    main()
