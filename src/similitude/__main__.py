"""What starts: the command ``similitude``, ``python -m similitude``, and torchrun's processes."""

import codecs
import io
import os
import signal
import sys
import unicodedata

from similitude.listener import INTERRUPTED, end_anywhere, stop_signals


def main() -> None:
    """The command line; stop signals end it without a traceback, even while it is loading."""
    for number in stop_signals():
        # a script lets what it runs in the background ignore Ctrl-C
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end_anywhere)
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
        if ended.code not in [128 + number for number in stop_signals()]:
            raise
        code = int(ended.code or 0)
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
