"""Every option is written once: Python, the command line and their help say the same."""

import inspect
import pydoc
from dataclasses import fields

import pytest
from typer.testing import CliRunner

import similitude as sim
from similitude.cli import app
from similitude.errors import UserError
from similitude.modalities import chooser
from similitude.training.choose import opened_with
from similitude.training.request import DistillRequest, FinetuneRequest, PretrainRequest, flag_of

REQUESTS = {"pretrain": PretrainRequest, "finetune": FinetuneRequest, "distill": DistillRequest}


@pytest.mark.parametrize("verb", REQUESTS)
def test_python_and_the_command_line_have_the_same_options(verb):
    request = REQUESTS[verb]
    options = [f for f in fields(request) if f.metadata]
    assert list(inspect.signature(getattr(sim, verb)).parameters) == [f.name for f in options]
    described = pydoc.getdoc(getattr(sim, verb))
    help_text = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
    for f in options:
        assert f"{f.name}: {f.metadata['text']}" in described
        if f.metadata["cli"] is not None:
            assert " ".join(f.metadata["text"].split()[:3]) in help_text
        else:
            assert flag_of(f) not in help_text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 1.0, "epochs": 2}, "--minutes and --epochs"),
        ({"minutes": 1.0, "overrides": "epochs=2"}, "--minutes and --set epochs"),
        ({"minutes": 0.0}, "--minutes 0: give a number above 0"),
        ({"resume": True}, "--resume needs the run"),
        ({"auto_resume": True}, "--auto-resume needs the place"),
        ({"auto_resume": True, "out": "r", "resume": True}, "leave out --resume and --overwrite"),
        ({"auto_resume": True, "out": "r", "overwrite": True}, "leave out --resume and --overwr"),
        ({"resume": True, "out": "r", "seed": 0}, "leave out --method, --backbone, .* and --seed"),
    ],
)
def test_what_contradicts_itself_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        PretrainRequest("photos", **options).settled(lambda folder: False).check()


@pytest.mark.parametrize("saved", [True, False])
def test_auto_resume_goes_on_where_there_is_a_checkpoint_and_begins_elsewhere(saved):
    """With options, which a command that is given twice has both times."""
    request = PretrainRequest("photos", out="r", auto_resume=True, epochs=2, method="byol")
    settled = request.settled(lambda folder: saved)
    settled.check()
    assert settled.modes == {"resume": saved, "overwrite": not saved}


def test_a_run_is_resumed_by_its_folder_and_the_name_of_an_own_method():
    PretrainRequest("photos", out="r", resume=True, method="mine:Method", devices=2).check()


def test_an_option_that_is_none_is_an_unknown_one():
    with pytest.raises(TypeError, match="temprature"):
        sim.pretrain("photos", temprature=0.1)


def test_channels_and_depth_are_fields_of_images_and_refused_elsewhere():
    request = PretrainRequest(None, channels=4, depth=16, overrides=["depth=8"])
    assert request.settings == ("channels=4", "depth=16", "depth=8")
    assert request.overridden == {"channels", "depth"}
    assert (data := opened_with(request, chooser("image"))) is not None
    assert (data.channels, data.depth) == (4, 8)
    with pytest.raises(UserError, match="--channels is of images"):
        opened_with(request, chooser("audio"))
