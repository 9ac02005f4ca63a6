"""Ctrl-C ends the command with the exit code that shells know, wherever it meets it."""

import os
import signal
import subprocess
import sys

import pytest

LOADING = """
class Interrupted(type(sys)):
    def __getattr__(self, name):
        {how}
sys.modules["similitude.cli"] = Interrupted("similitude.cli")
"""
RUNNING = """
cli = type(sys)("similitude.cli")
def command():
    {how}
cli.main = command
sys.modules["similitude.cli"] = cli
"""
HOW = {
    "raised": "raise KeyboardInterrupt",
    # as where a dataclass is being made; Python then kills itself, although it was caught
    "raised in exec": "exec('raise KeyboardInterrupt')",
    "told by its exit code": "print('saved'); sys.exit(130)",
}


def run(where, how):
    code = f"import sys{where.format(how=how)}from similitude.__main__ import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("where", [LOADING, RUNNING])
@pytest.mark.parametrize("how", HOW)
def test_ctrl_c_gives_130_and_no_traceback(where, how):
    done = run(where, HOW[how])
    assert done.returncode == 130
    assert done.stderr == ""
    assert done.stdout == ("saved\n" if how == "told by its exit code" else "")


def test_other_exit_codes_stay():
    code = (
        f"import sys{RUNNING.format(how='sys.exit(2)')}from similitude.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "2.0 +- 0.1 cafe ?"), ("utf-8", "2.0 ± 0.1 café ?")]
)
def test_what_a_terminal_has_no_sign_for_is_spelled(encoding, shown):
    """Also the names of files that are no text in any encoding."""
    how = r"print('2.0 ± 0.1 café \udcff')"
    code = f"import sys{RUNNING.format(how=how)}from similitude.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.stdout.decode().strip() == shown
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_module_that_catches_everything_does_not_go_on(tmp_path, number):
    """As modules do that ask whether another is there."""
    module = "import signal\ntry:\n    signal.raise_signal({})\nexcept BaseException:\n    pass\n"
    (tmp_path / "catches.py").write_text(module.format(int(number)))
    how = f"sys.path.insert(0, {str(tmp_path)!r}); import catches; print('went on')"
    done = run(RUNNING, how)
    assert (done.returncode, done.stdout) == (128 + number, "")


@pytest.mark.parametrize("where", [LOADING, RUNNING])
def test_sigterm_gives_143_and_says_what_to_do(where):
    done = run(where, "import signal; signal.raise_signal(signal.SIGTERM)")
    assert done.returncode == 128 + signal.SIGTERM
    assert "give the same command again" in done.stderr
    assert done.stderr.count("\n") == 1
