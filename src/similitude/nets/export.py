"""What a format is in which a trained backbone is used where similitude is not."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import nn


class Exported(NamedTuple):
    """A trained backbone, and what is known of its input.

    Attributes:
        backbone: In evaluation mode, on the CPU.
        network: The :class:`NetworkConfig` that it was built from.
        data: The :class:`DataConfig` of its samples.
        facts: What its input is like.
        is_wrapped: Whether the method keeps more than what ``network`` builds.
        classifying: What makes logits [N, C] of features, of a classifier.
        class_names: Of these logits.
    """

    backbone: nn.Module
    network: Any
    data: Any
    facts: Any
    is_wrapped: bool
    classifying: nn.Module | None = None
    class_names: tuple[str, ...] = ()


class Export(ABC):
    """A format. An entry of a modality's ``exports`` is all that one needs.

    Attributes:
        name: As `--to` takes it.
        library: What the model card says that it is for.
        needs: Packages that have to be there, by the names under which they are imported.
        extra: The extra of similitude that brings them; empty where all have them.
        holds_classes: Whether it takes a classifier's logits too; else its features alone.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    holds_classes: ClassVar[bool] = False

    def unfit(self, model: Exported) -> str | None:
        """Why this backbone cannot be written in the format, in a few words; None where it can."""
        return None

    @abstractmethod
    def write(self, model: Exported, folder: Path) -> None:
        """Write the files of the format into a folder that is there."""

    @abstractmethod
    def snippet(self, model: Exported, folder: str) -> str:
        """Python without similitude that uses these files.

        It defines ``prepare(files)``, the input of the network for N files by the format's own
        preprocessing, and ``features(inputs)``, [N, D]. Where the format holds classes and there
        are some, ``logits(inputs)``, [N, C], and their names, ``CLASSES``.
        """

    @abstractmethod
    def reference(self, model: Exported) -> nn.Module:
        """The backbone, for the inputs that ``prepare`` of the snippet makes.

        Where ``logits`` are defined too it gives both.
        """
