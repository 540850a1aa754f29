"""A tiny assay and plate, in a home that is ready to be worked with: what ``cytoloop import`` leaves behind.

Fields of 64 x 80 pixels in two channels, one cell a quarter, cut into 2 x 2 items of 32 x 40.
"""

from __future__ import annotations

import atexit
import copy
import functools
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fakes import EXPERT, OTHER_EXPERT, PROJECT, FakeLabelStudio
from numpy.typing import NDArray

from cytoloop.adapters.assays import load_assay, read_assay
from cytoloop.adapters.images import palette_of, write_mask, write_png
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.commands.weak_label import weak_label_command
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from cytoloop.domain.queue_policy import Expert, QueuePolicy
from cytoloop.domain.scoring import Look, soften
from cytoloop.domain.strategies import Need
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, ModelVersion
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.predictors import load_predictor
from cytoloop.pipeline.weak_labels import weak_label_store
from labelstudio_config.handout import refill
from labelstudio_config.intake import Intake
from labelstudio_config.payloads import prediction_result
from labelstudio_config.project import import_tasks
from labelstudio_config.publish import publish

HEIGHT, WIDTH = 64, 80
ASSAY = """
name: tiny
channels:
  - {name: Stain, suffix: _c0, colour: "#00ff00"}
  - {name: DNA, suffix: _c1, colour: "#0000ff"}
classes:
  - {name: Background, colour: "#000000"}
  - {name: Cytoplasm, colour: "#e69f00"}
  - {name: Nucleus, colour: "#cc79a7"}
ignore: {name: Ignore, colour: "#999999"}
tiling: 2x2
cip:
  recipe: cells2ch
  parameters: {cell_area: 30, hole_area: 20, nucleus_area: 8, nucleus_wide: 12}
display: {scope: image}
training: smoke
"""
BATCH = QueuePolicy.all_ranked(
    strategy="entropy", size=8, contest_share=0.25, validation_share=0.125, audit_share=0.125
)
"""Two contest items, one of validation, one at random, four ranked: whole numbers, so that nothing is left to chance."""
ADA, BOB = (Expert(name=u["email"].split("@")[0].title(), email=u["email"]) for u in (EXPERT, OTHER_EXPERT))
"""The two users of the Label Studio in memory."""


def draw(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A field and its truth: ``image_CHW`` and ``mask_HW``; a cell at a drawn place of each quarter."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    image_CHW = rng.normal(30, 3, (2, HEIGHT, WIDTH))
    for top in (0, 32):
        for left in (0, 40):
            row, column = top + rng.integers(12, 20), left + rng.integers(12, 28)
            distance = np.hypot(rows - row, columns - column)
            cell, nucleus = distance < rng.integers(8, 11), distance < rng.integers(4, 6)
            image_CHW[0][cell] += 90
            image_CHW[1][nucleus] += 120
            mask_HW[cell], mask_HW[nucleus] = 1, 2
    return image_CHW.clip(0, 255).astype(np.uint8), mask_HW


class Painted:
    """A network that says what it is given, and nothing but that; it counts the images it looked at."""

    def __init__(
        self,
        version: str,
        masks: dict[str, NDArray[np.uint8]],
        offers: Collection[Need] = ("network", "features"),
    ) -> None:
        self.version = version
        self.offers: frozenset[Need] = frozenset(offers)
        self.looks = 0
        self._masks = masks

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        return soften(self._masks[record.image_id], 3)

    def look(self, record: ImageRecord, needs: Collection[Need]) -> Look:
        assert set(needs) <= self.offers
        self.looks += 1
        prob_KHW = self.predict(record)
        return Look(
            prob_KHW=prob_KHW,
            mutual_information_HW=np.full(prob_KHW.shape[1:], 0.1, np.float32)
            if "dropout" in needs
            else None,
            features_FHW=prob_KHW[:, ::8, ::8] if "features" in needs else None,
            cip_HW=np.zeros(prob_KHW.shape[1:], np.uint8) if "cip" in needs else None,
        )


@dataclass(kw_only=True)
class Tiny:
    """A home with a plate in it, and the Label Studio it works with."""

    home: Path
    store: Store
    registry: Registry
    assay: Assay
    studio: FakeLabelStudio
    intake: Intake
    truth: dict[str, NDArray[np.uint8]]

    @property
    def name(self) -> str:
        return self.assay.name

    @property
    def settings(self) -> Settings:
        return Settings(
            home=self.home,
            label_studio_url="http://127.0.0.1:8080",
            label_studio_token="studio-token-7f3a",
            backend_url="http://127.0.0.1:9090",
            backend_password="backend-password-91c2",
            webhook_secret="webhook-secret-5d0e",
            api_tokens=self.home / "api-tokens",
            device="cpu",
        )

    def task_of(self, item: Item) -> int:
        task_id = self.store.images.tasks(self.name)[item]
        assert task_id is not None
        return task_id

    def items(self) -> list[Item]:
        return list(self.store.images.tasks(self.name))

    def truth_of(self, item: Item) -> NDArray[np.uint8]:
        tile = tiles_of(HEIGHT, WIDTH, self.assay.tiling)[item.tile]
        return self.truth[item.image_id][tile.slices]

    def regions(self, item: Item) -> list[dict[str, Any]]:
        """The truth of an item as an expert would submit it."""
        return prediction_result(self.truth_of(item), self.assay)

    def correct(self, item: Item, **fields: Any) -> int:
        """An expert submits the truth; returns the annotation's id."""
        return self.studio.annotate(self.task_of(item), self.regions(item), **fields)

    def listen(self) -> None:
        """Webhooks arrive in the inbox from here on."""
        self.studio.listener = self.store.inbox.append

    def split_of(self, item: Item) -> str:
        return self.store.images.get(self.name, item.image_id).split

    def standing(self, item: Item) -> Any:
        return self.store.corrections.standing(self.name).get(item)

    def set_policy(self, policy: QueuePolicy, *queues: str) -> None:
        """Set the policy of these queues, or of all."""
        for queue in queues or self.assay.queues:
            self.store.queues.set(self.name, queue, policy.document())

    def publish_active(self, policy: QueuePolicy = BATCH) -> int:
        """Publish the version in force and hand out batches; returns its predictions in Label Studio."""
        self.set_policy(policy)
        model = self.store.models.active(self.name)
        predictor = load_predictor(self.store, self.registry, self.assay, model)
        shown = publish(self.studio, self.store, self.assay, predictor)
        refill(self.studio, self.store, self.assay)
        return shown

    def add_version(self, version: str, offers: Collection[Need] = ("network", "features")) -> Painted:
        """Register a candidate that says the truth."""
        old = self.store.models.active(self.name)
        self.store.models.add(
            ModelVersion(
                version=version,
                assay=self.name,
                method="cdl",
                status="candidate",
                digest="00",
                parent=None,
                snapshot=None,
                config={},
                metrics={},
                created_at=old.created_at,
            )
        )
        return Painted(version, self.truth, offers)

    def active(self) -> str:
        return self.store.models.active(self.name).version

    def held(self, expert: str | None = None, queue: str | None = None) -> list[Item]:
        """Items that are leased, sorted."""
        return sorted(lease.item for lease in self.store.leases.held(self.name, queue, expert))

    def prediction_of(self, item: Item) -> int:
        """Id of what Label Studio shows of an item: the prediction of the version in force."""
        (shown,) = (
            number
            for number, p in self.studio.predictions.items()
            if (p["task"], p["model_version"]) == (self.task_of(item), self.studio.model_version)
        )
        return shown


def write_fields(folder: Path, wells: list[str]) -> dict[str, NDArray[np.uint8]]:
    """Write a field a well; the truth by image id."""
    truth = {}
    for number, well in enumerate(wells):
        image_CHW, mask_HW = draw(number)
        for channel, grey_HW in enumerate(image_CHW):
            write_png(folder / f"P-{well}_c{channel}.png", grey_HW)
        truth[f"P-{well}"] = mask_HW
    return truth


def write_labelled_plate(folder: Path, fields: int) -> tuple[Assay, Path]:
    """A plate of so many wells with its truth in ``labels``, and the CIP's masks in ``weak`` beside it."""
    (folder / "tiny.yaml").write_text(ASSAY, encoding="utf-8")
    assay = read_assay(folder / "tiny.yaml")
    plate = folder / "plate"
    for sub in ("images", "labels"):
        (plate / sub).mkdir(parents=True)
    for seed in range(fields):
        image_CHW, mask_HW = draw(seed)
        name = f"p1_{'ABCDEFGH'[seed]}01f01"
        for channel in range(2):
            write_png(plate / "images" / f"{name}_c{channel}.png", image_CHW[channel])
        write_mask(plate / "labels" / f"{name}.png", mask_HW, palette_of(assay))
    weak_label_command(plate, folder / "weak", assay)
    return assay, plate


def add_plate(tiny: Tiny, folder: Path) -> None:
    """Bring a plate in, without publishing."""
    tiny.store.images.add(tiny.assay, read_plate(folder, tiny.assay))
    weak_label_store(tiny.store, tiny.assay)
    ensure_cip_version(tiny.store, tiny.registry, tiny.assay)
    import_tasks(tiny.studio, tiny.store, tiny.assay)  # type: ignore[arg-type]


def make_tiny(folder: Path, wells: int = 4) -> Tiny:
    """A new home with a plate of so many wells, imported; nothing is published yet.

    The first of its size is made, the others are copies; all read the images of the first.
    """
    template, studio, truth = _template(wells)
    shutil.copytree(template / "home", folder / "home", symlinks=True)
    return open_tiny(folder / "home", copy.deepcopy(studio), truth)


def open_tiny(home: Path, studio: FakeLabelStudio, truth: dict[str, NDArray[np.uint8]]) -> Tiny:
    """Open a home."""
    load = functools.cache(lambda name: load_assay(name, [home / "assays"]))
    store = Store(home)
    return Tiny(
        home=home,
        store=store,
        registry=Registry(home / "models"),
        assay=load("tiny"),
        studio=studio,
        intake=Intake(store, studio, load),
        truth=truth,
    )


@functools.cache
def _template(wells: int) -> tuple[Path, FakeLabelStudio, dict[str, NDArray[np.uint8]]]:
    folder = Path(tempfile.mkdtemp(prefix="cytoloop-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "home" / "assays").mkdir(parents=True)
    (folder / "home" / "assays" / "tiny.yaml").write_text(ASSAY, encoding="utf-8")
    truth = write_fields(folder / "plate", [f"{'ABCD'[n // 8]}{n % 8 + 1:02d}" for n in range(wells)])
    assay = load_assay("tiny", [folder / "home" / "assays"])
    studio = FakeLabelStudio([*(label.name for _, label in assay.foreground), assay.ignore.name])
    tiny = open_tiny(folder / "home", studio, truth)
    tiny.store.assays.ensure(assay)
    tiny.store.assays.update("tiny", project_id=PROJECT)
    add_plate(tiny, folder / "plate")
    tiny.store.close()
    return folder, studio, truth
