"""An assay: what is imaged, which classes are drawn, and how labels are first made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cytoloop.domain.digest import digest_of
from cytoloop.domain.documents import told
from cytoloop.domain.errors import UnsupportedLabelConfig
from cytoloop.domain.trainer_policy import TrainerPolicy

IGNORE = 255
"""Value of a pixel nobody looked at; it never counts, in a loss or in a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One fluorescence channel of an image."""

    name: str
    suffix: str | None = None
    """End of the file's stem where each channel is a file of its own (``_ch1-gal3``)."""
    folder: str | None = None
    """Folder, inside that of the images, where each channel has files of its own in a folder of its own."""
    plane: int | None = None
    """Index of the plane where all channels share one file."""
    colour: str = "#ffffff"
    """Display colour, ``#rrggbb``: what this channel looks like in the composite."""
    recorded_as: str | int | None = None
    """What the microscope calls it (Harmony's or OME's channel name, or Harmony's ChannelID); None: ``name``."""

    @property
    def has_own_file(self) -> bool:
        """Whether the channel is a file of its own."""
        return self.suffix is not None or self.folder is not None

    @property
    def recorded_name(self) -> str | int:
        """What to look for in a microscope's index."""
        return self.name if self.recorded_as is None else self.recorded_as


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClass:
    """One class of the segmentation, as it is drawn."""

    name: str
    colour: str
    hotkey: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A further opinion on the weak label, beside the assay's first recipe."""

    recipe: str | None = None
    """None: the first teacher's."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Laid over the first teacher's parameters where the recipe is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cip:
    """Which recipe makes the weak labels, and with which parameters (others at their defaults)."""

    recipe: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    teachers: tuple[Teacher, ...] = ()
    """Who votes beside ``recipe`` with ``parameters``, which is the first teacher."""
    agreement: float = 0.0
    """Share of the votes, 0…1, below which a pixel is not learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How raw grey values become 8 bit for the editor; the model never sees these."""

    percentiles: tuple[float, float] = (0.5, 99.8)
    """Black and white point, in percentiles of a plate's pixels per channel (or of the image's)."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Fixed black and white point in grey values, by channel name; wins over the percentiles."""
    scope: str = "plate"
    """``plate``: one range for all images of a plate, so that brightness can be compared; or ``image``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assay:
    """The one file an administrator writes, as plain values (``cytoloop.adapters.assays`` reads it)."""

    name: str
    channels: tuple[Channel, ...]
    classes: tuple[LabelClass, ...]
    """Index = pixel value. The first is the background, which is never drawn."""
    ignore: LabelClass
    cip: Cip
    pixel_size_um: float | None = None
    """Side of a pixel in micrometres, where known."""
    tiling: tuple[int, int] = (1, 1)
    """(rows, columns) of items per image."""
    z_plane: int | None = None
    """Which focal plane of a stack is used, as the microscope numbers them; None: the only one there is."""
    reviewed_region: bool = False
    """Whether an expert may frame what was looked at; what lies outside then counts as not looked at."""
    class_priority: tuple[str, ...] = ()
    """Who wins where drawn classes overlap, strongest first; default: the order of ``classes`` reversed."""
    display: Display = field(default_factory=Display)
    training_preset: str = "fast"
    normalisation: Mapping[str, float] = field(default_factory=dict)
    """What the network's normalisation does otherwise than usual: ``low``, ``high``, ``softness``
    (`cytoloop.nn.normalisation.Normalisation`)."""
    queues: tuple[str, ...] = ("default",)
    queue_policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Policy by queue as it is written in the file, of those that have one (`cytoloop.domain.queue_policy`).
    It says who works when, not what is made: it is no part of the document or the digest."""
    trainer: TrainerPolicy = field(default_factory=TrainerPolicy)
    """When the trainer trains, and what a challenger must prove; no part of the document either."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by pixel value, background first."""
        return tuple(c.name for c in self.classes)

    @property
    def class_count(self) -> int:
        """K, background included."""
        return len(self.classes)

    @property
    def foreground(self) -> tuple[tuple[int, LabelClass], ...]:
        """(pixel value, class) of everything that is drawn."""
        return tuple(enumerate(self.classes))[1:]

    @property
    def priority_values(self) -> tuple[int, ...]:
        """Pixel values of the drawn classes, strongest first.

        Without ``class_priority`` the later class wins: classes are listed from the large
        (cytoplasm) to the small (nucleus), and the small one would otherwise be lost.
        """
        if self.class_priority:
            return tuple(self.value_of(name) for name in self.class_priority)
        return tuple(range(len(self.classes) - 1, 0, -1))

    def value_of(self, name: str) -> int:
        """Pixel value of a drawn class, or of the ignore label.

        Raises
        ------
        UnsupportedLabelConfig
            If the assay has no drawn class of that name.
        """
        if name == self.ignore.name:
            return IGNORE
        for value, label in self.foreground:
            if label.name == name:
                return value
        known = [label.name for _, label in self.foreground] + [self.ignore.name]
        raise UnsupportedLabelConfig(
            f"label {told(name)} is not of assay {self.name!r}; expected one of {known}"
        )

    def document(self) -> dict[str, Any]:
        """The assay as JSON, stored beside everything that was made under it.

        One teacher is written as it was before there could be more, and so is a channel that has but one name:
        digests stay.
        """
        document = asdict(self)
        del document["queue_policies"], document["trainer"]
        if not self.cip.teachers:
            del document["cip"]["teachers"]
            if self.cip.agreement == 0.0:
                del document["cip"]["agreement"]
        if not self.normalisation:
            del document["normalisation"]
        if self.z_plane is None:
            del document["z_plane"]
        if not self.reviewed_region:
            del document["reviewed_region"]
        for channel in document["channels"]:
            for key in ("recorded_as", "folder"):
                if channel[key] is None:
                    del channel[key]
        return document

    @property
    def digest(self) -> str:
        """SHA-256 of the document."""
        return digest_of(self.document())
