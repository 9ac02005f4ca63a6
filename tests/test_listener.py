"""What a stopped command says, before it has a listener."""

import signal

import pytest

from similitude.listener import end


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("pretrain photos", "; if it had begun, with --resume"),
        ("pretrain photos --out r --resume", ""),
        ("pretrain photos --out r --auto-resume", ""),
        ("finetune r photos", "; if it had begun, with --resume"),
        ("evaluate r photos", ""),  # has no such option
    ],
)
def test_what_is_stopped_early_names_the_command_that_goes_on(monkeypatch, capfd, command, more):
    monkeypatch.setattr("sys.argv", ["similitude", *command.split()])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(SystemExit, match="143"):
        end(signal.SIGTERM)
    assert capfd.readouterr().err == f"stopped: give the same command again{more}\n"
