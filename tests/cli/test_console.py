"""What a person sees while a command works: on a terminal, and where there is none."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console as RichConsole
from rich.console import Group
from rich.table import Table

from similitude.cli import console as console_module
from similitude.cli.console import Console

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture(autouse=True)
def _capable_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


def console_on(out, *, terminal, width=80):
    return Console(
        RichConsole(
            file=out,
            force_terminal=terminal,
            force_interactive=terminal,
            color_system=None,
            highlight=False,
            width=width,
        )
    )


def screen(out):
    """The lines that a terminal shows in the end: what was redrawn or erased is gone."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[\??\d+[a-zA-Z]|\n|[^\x1b\r\n]+", out.getvalue()):
        if token == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token.startswith("\x1b") and token.endswith("A"):
            row -= int(token[2:-1])
        elif not token.startswith("\x1b"):
            lines[row] += token
    return [line.rstrip() for line in lines if line.strip()]


def test_without_a_terminal_a_line_is_shown_now_and_then_and_the_last_one_always(monkeypatch):
    out = io.StringIO()
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(console_module, "time", clock)
    with console_on(out, terminal=False) as console:
        for step in range(11):
            console.progress("training", step, 10, f"loss {10 - step}")
            clock.now += 7  # three of these are the first to exceed 20 seconds
    assert out.getvalue().splitlines() == [
        "training 0/10  loss 10",
        "training 3/10  loss 7",
        "training 6/10  loss 4",
        "training 9/10  loss 1",
        "training 10/10  loss 0",
    ]


def test_without_a_terminal_a_step_that_has_nothing_to_tell_leaves_no_line():
    out = io.StringIO()
    with console_on(out, terminal=False) as console:
        for done in range(1, 4):
            console.progress("reading images", done, 3)
    assert out.getvalue() == ""


def test_a_terminal_shows_how_far_the_work_is_and_keeps_only_the_sentences():
    out = io.StringIO()
    with console_on(out, terminal=True) as console:
        console.say("3 images in photos")
        console.progress("training", 1, 7, "loss 4.16")
        console.say("half of it is done")
        console.progress("training", 5, 7, "loss 2.05")
    for part in ("training", "5/7", "loss 2.05"):
        assert part in out.getvalue()
    assert screen(out) == ["3 images in photos", "half of it is done"]


def test_a_terminal_shows_a_bar_for_each_kind_of_work_until_it_is_finished():
    out = io.StringIO()
    with console_on(out, terminal=True) as console:
        console.progress("reading", 1, 2)
        console.progress("training", 1, 9)
        assert [line.split()[0] for line in screen(out)] == ["reading", "training"]
        console.progress("reading", 2, 2)
        console.progress("training", 4, 9)
        console.progress("evaluating", 1, 6)
        training, evaluating = screen(out)
        assert training.startswith("training")
        assert "4/9" in training
        assert evaluating.startswith("evaluating")


def test_ctrl_c_gives_the_terminal_back_and_is_not_swallowed():
    out = io.StringIO()

    def work():
        with console_on(out, terminal=True) as console:
            console.progress("training", 3, 9, "loss 2.05")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert out.getvalue().count(HIDE_CURSOR) == out.getvalue().count(SHOW_CURSOR) == 1
    assert screen(out) == []


def test_work_that_was_cut_off_can_be_shown_again_from_its_start():
    out = io.StringIO()
    console = console_on(out, terminal=True)
    with console:
        console.progress("training", 5, 9)
    before = len(out.getvalue())
    with console:
        console.progress("training", 1, 9)
    shown = out.getvalue()[before:]
    assert "1/9" in shown
    assert "5/9" not in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_a_sentence_is_shown_as_it_was_said_whatever_its_signs_and_length(terminal):
    """A path in it can be copied: no markup is read into it, and no line is broken."""
    out = io.StringIO()
    sentence = f"report: /photos:b:c [bold]/[2024]/{'x' * 50}/report.html"
    with console_on(out, terminal=terminal, width=30) as console:
        console.progress("photos [/x]:b:", 1, 9, "loss [/y]")
        console.say(sentence)
    lines = [] if terminal else ["photos [/x]:b: 1/9  loss [/y]"]  # a bar goes when it is done
    assert screen(out) == [*lines, sentence]


def test_a_table_and_its_caption_keep_to_the_width_and_lose_no_word():
    out = io.StringIO()
    words = "the same network with the weights it had before training"
    table = Table("backbone", "what it is")
    table.add_row("random", words)
    caption = "kNN asks the twenty nearest of the images, by cosine"
    console_on(out, terminal=False, width=40).print(Group(table, caption))
    assert max(map(len, screen(out))) <= 40
    assert set(f"{words} {caption}".split()) <= set(out.getvalue().split())
