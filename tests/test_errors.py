"""What somebody else named cannot act on a terminal or turn the order of a line."""

import io

import pytest
from rich.console import Console as RichConsole

from similitude.cli.console import Console
from similitude.errors import visible, visible_values
from similitude.evaluation import Score, ScoreTable
from similitude.listener import Log, Silent

EVIL = "a\x1b]0;OWNED\x07\x1b[31m\r\nerror: FAKE\u202egpj\u2028.png"
SHOWN = r"a\x1b]0;OWNED\x07\x1b[31m\r\nerror: FAKE\u202egpj\u2028.png"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, SHOWN),
        ("\x00\x7f\x85\x9b", r"\x00\x7f\x85\x9b"),
        ("\u2066x\u2069\u200f\ufeff", r"\u2066x\u2069\u200f\ufeff"),
        ("a\tb", r"a\tb"),
        ("Über 猫\u3000 1\u00a0% émoji 🦊", "Über 猫\u3000 1\u00a0% émoji 🦊"),
        ("", ""),
    ],
)
def test_what_controls_is_written_out_and_letters_stay(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown
    assert visible_values({text: [text, 1, None]}) == {shown: [shown, 1, None]}


def test_terminal_log_and_table_show_it(tmp_path):
    out = io.StringIO()
    console = Console(RichConsole(file=out, width=300, highlight=False))
    console.say(EVIL)
    console.progress(EVIL, 1, 1, EVIL)
    table = ScoreTable(EVIL, 2, 2, 2, ["knn"], {EVIL: {"knn": Score(0.5)}}, notes=[EVIL])
    console.print(table.render())
    text = out.getvalue()
    assert text.count(SHOWN) == 6
    assert not any(c in text for c in "\x1b\x07\r\u202e\u2028")

    log = Log(Silent(), tmp_path / "log.txt")
    log.say(EVIL)
    (line,) = (tmp_path / "log.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert line.endswith(SHOWN)
