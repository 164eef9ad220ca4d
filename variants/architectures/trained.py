"""Networks of an architecture that were trained, kept with their lineage: what was trained once is not trained again.

Every training is kept as soon as it ends, and one that was interrupted goes on from its last whole epoch.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from variants.architectures import image
from variants.architectures.image import ImageArchitecture
from variants.atomic import replacing
from variants.training import batch, fit, image_augmentation, settings
from variants.training import recipe as recipes
from variants.training.model import Model, Step
from variants.training.recipe import Pipeline, Recipe, Run
from variants.training.rows import Rows, TrainingData
from variants.weights import content_key

_KEY, _LINEAGE = "key", "lineage"
_VARIANTS = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, eq=False)
class Trainer:
    """Trains networks from images float32 [n, 28, 28] to `classes` logits, and keeps them in `folder`.

    `input_name` is what the exported graphs call the images.
    """

    data: TrainingData
    classes: int
    input_name: str
    folder: Path
    digest: str

    @classmethod
    def of(cls, data: TrainingData, classes: int, input_name: str, folder: Path) -> Trainer:
        """Return a trainer whose kept networks are told from those of other data by its digest."""
        parts = [data.train, data.validation, *([] if data.unlabelled is None else [data.unlabelled])]
        return cls(data, classes, input_name, folder, content_key(*(part for rows in parts for part in _content(rows))))

    def untrained(self, name: str, architecture: ImageArchitecture, seed: int) -> Model:
        """Return a new network, its weights drawn by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Twice as fast to train as channels first, for images as small as these.
            module = architecture.network(self.classes)
            for weights in module.parameters():
                if weights.dim() == 4:
                    weights.data = weights.data.contiguous(memory_format=torch.channels_last)
        (images,) = self.data.train.inputs
        return Model(name, module, {self.input_name: images[:2]})

    def trained(
        self,
        name: str,
        architecture: ImageArchitecture,
        recipe: Recipe | Pipeline,
        seed: int,
        *,
        advance: Callable[[float], None] = lambda _: None,
        depends: str = "",
    ) -> Model:
        """Return the network that the recipe trains from new weights, or the one that is kept of the same training.

        `recipe` must leave the network's shape as it is. `depends` stands for what the recipe holds besides its
        settings: the key of a teacher. `advance` is told the fraction done, in [0, 1].
        """
        model = self.untrained(name, architecture, seed)
        key = self.key(architecture, recipe, seed, depends)
        # Named by content: whoever asks for the same training, under whatever name, finds it.
        path = self.folder / f"{key[:24]}.safetensors"
        kept = _load(path, key, model)
        if kept is None:
            unfinished = self.folder / "unfinished" / key[:24]
            kept = recipe(model, self.data, Run(seed, advance, unfinished))
            _save(path, key, kept)
        advance(1.0)
        return kept

    def key(self, architecture: ImageArchitecture, recipe: Recipe | Pipeline, seed: int, depends: str = "") -> str:
        """Return the hash of everything that a training depends on: descriptions, seed, data, torch, and code."""
        settings = f"{architecture}; {description(recipe)}; {depends}; seed {seed}, torch {torch.__version__}"
        return content_key(settings, self.digest, *code_of(architecture, *parts_of(recipe)))


def description(recipe: Recipe | Pipeline) -> str:
    """Return what a recipe is made of in one line."""
    return " >> ".join(part.describe() for part in parts_of(recipe))


def parts_of(recipe: Recipe | Pipeline) -> tuple[Recipe, ...]:
    """Return the recipes of a pipeline, or the one recipe that it is."""
    return recipe.recipes if isinstance(recipe, Pipeline) else (recipe,)


def _content(rows: Rows) -> list[bytes]:
    return [values.contiguous().numpy().tobytes() for values in (*rows.inputs, rows.labels)]


def code_of(*parts: object) -> list[Path]:
    """Return the files that decide how the parts' descriptions become a trained network: their defaults, and the loop.

    The parts are recipes and architectures, or networks.
    """
    kinds = dict.fromkeys(kind for part in parts for kind in type(part).__mro__)
    files = dict.fromkeys(inspect.getfile(kind) for kind in kinds if kind.__module__ != "builtins")
    own = [Path(file) for file in files if Path(file).is_relative_to(_VARIANTS)]
    shared = (image, batch, fit, recipes, settings, image_augmentation)
    return list(dict.fromkeys([*own, *(Path(inspect.getfile(module)) for module in shared)]))


def _load(path: Path, key: str, model: Model) -> Model | None:
    """Return the model with the weights and the lineage kept under the key; None where there are none."""
    try:
        with safe_open(path, framework="pt") as kept:
            about = kept.metadata() or {}
            if about.get(_KEY) != key:
                return None
            # BatchNorm's counters of batches are not kept: nothing reads them.
            model.module.load_state_dict({name: kept.get_tensor(name) for name in kept.keys()}, strict=False)  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError):
        return None
    model.module.eval()
    return replace(model, lineage=tuple(Step(**step) for step in json.loads(about[_LINEAGE])))


def _save(path: Path, key: str, model: Model) -> None:
    weights: dict[str, Tensor] = {
        name: values.contiguous() for name, values in model.module.state_dict().items() if values.is_floating_point()
    }
    about = {_KEY: key, _LINEAGE: json.dumps([dataclasses.asdict(step) for step in model.lineage])}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(weights, temporary, about)
