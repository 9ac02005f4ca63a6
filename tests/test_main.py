import sys
from types import ModuleType

import pytest

from similitude.__main__ import main


class _Interrupted(ModuleType):
    """A module that Ctrl-C meets while it is loading."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


def test_ctrl_c_while_loading_ends_it_without_a_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "similitude.cli", _Interrupted("similitude.cli"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
