"""What an ablation was asked for, and the plan that is made of it before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from similitude.ablation.grid import Planned, Variation, grid
from similitude.ablation.study import Study
from similitude.data.source import Source
from similitude.errors import UserError
from similitude.experiment import as_kept
from similitude.method import MethodConfig
from similitude.modalities import Modality
from similitude.recipes import Recipe, find_recipe, override
from similitude.sample import DataConfig
from similitude.training.choose import choose_for


@dataclass(frozen=True)
class Design:
    """What was asked for."""

    name: str | None  # of the study
    study: Study | None
    method: str | MethodConfig | None
    variations: list[Variation]
    recipe: str | Path | Recipe | None
    overrides: tuple[str, ...]
    epochs: int | None
    images: int | None
    modality: Modality

    def check(self, data: Any) -> None:
        """Refuse what contradicts itself or is not enough."""
        if self.study is not None:
            if self.method is not None or self.recipe is not None or self.variations:
                raise UserError(
                    "a study has its own methods and recipes: leave out METHOD, --recipe, --vary"
                )
        elif not self.variations:
            raise UserError(
                "nothing varies: give --vary FIELD=A,B, or --study NAME (--list shows the studies)"
            )
        elif data is None:
            raise UserError("an ablation needs METHOD and DATA; only a --study does without")

    @property
    def fields(self) -> list[str]:
        """What varies, as it was given."""
        return [variation.field for variation in self.variations]

    @property
    def label(self) -> str:
        """Which study, or which method."""
        if self.name is not None:
            return self.name
        if self.method is None:
            return "ablation"
        return self.method if isinstance(self.method, str) else self.method.name

    def request(self) -> dict[str, Any]:
        """What must be the same for an ablation to go on; seeds and values may be added."""
        method, recipe = self.method, self.recipe
        if isinstance(method, MethodConfig):
            method = method.model_dump(mode="json")
        if recipe is not None:  # its content: a file may change
            recipe = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
            recipe = recipe.model_dump(mode="json")
        return {
            "study": self.name,
            "method": method,
            "recipe": recipe,
            "settings": list(self.overrides),
            "epochs": self.epochs,
            "images": self.images,
            "fields": self.fields,
        }

    def images_of(self, source: Source) -> int:
        """How many training images to take."""
        most = self.images or (len(source) if self.study is None else self.study.images)
        return min(len(source), most)

    def bases(self, source: Source, count: int) -> dict[str, Recipe]:
        """What the cells start from, by the name of the recipe; one without a name for a grid.

        All compute in the same precision: that of the first.
        """
        if self.study is None:
            options = {"method": self.method, "recipe": self.recipe}
            base = choose_for(
                self.modality,
                source,
                count,
                epochs=self.epochs,
                overrides=self.overrides,
                **options,
            )
            return {"": base}
        # As many steps on a smaller set of images as the study takes on its own.
        epochs = self.epochs or round(self.study.epochs * max(1.0, self.study.images / count))
        bases: dict[str, Recipe] = {}
        for name in dict.fromkeys(cell.recipe for cell in self.study.cells):
            settings = [*self.study.settings, *self.overrides]
            if bases:
                first = next(iter(bases.values()))
                how = ("precision", "memory_format", "attention", "compile")
                settings += [f"{field}={getattr(first, field)}" for field in how]
            bases[name] = choose_for(
                self.modality, source, count, epochs=epochs, recipe=name, overrides=settings
            )
        return bases

    def data(self, bases: Mapping[str, Recipe]) -> DataConfig:
        """How samples are loaded so that they serve every cell."""
        recipes = [*bases.values(), *(cell.recipe for cell in self._planned(bases))]
        first, *others = [recipe.data for recipe in recipes]
        return first.serving(others)

    def cells(self, bases: Mapping[str, Recipe], source: Source, count: int) -> list[Planned]:
        """Every cell with its whole recipe, checked before anything is trained."""
        made = [replace(cell, recipe=as_kept(cell.recipe, source)) for cell in self._planned(bases)]
        folders = [cell.folder for cell in made]
        for folder in folders:
            if folders.count(folder) > 1:
                raise UserError(f"two cells would share the folder {folder}: vary other values")
        for cell in made:
            if cell.recipe.data.told_cut is not None:
                raise UserError("an ablation takes images whole: leave tile_size out")
            if count < cell.recipe.batch_size:
                size = max(2, count // 4)
                raise UserError(
                    f"{cell.name}: {count} images are fewer than one batch of "
                    f"{cell.recipe.batch_size}; add images or use --set batch_size={size}"
                )
            choose_for(
                self.modality, source, count, recipe=cell.recipe
            )  # says where views do not fit a backbone
        return made

    def _planned(self, bases: Mapping[str, Recipe]) -> list[Planned]:
        if self.study is not None:
            return [
                Planned(cell.name, {}, override(bases[cell.recipe], cell.settings))
                for cell in self.study.cells
            ]
        return grid(self.variations, bases[""])
