"""Whatever lies in a file: a value or an exact answer, never a bug of ours."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fuzzing import answered, damaged, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import make_assay
from tiny import ASSAY as TINY
from tiny import make_tiny

from cytoloop.adapters.assays import read_assay, shipped_folder
from cytoloop.adapters.images import read_mask, read_planes, read_raw
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.yaml_files import parse_yaml
from cytoloop.commands.home import Home
from cytoloop.commands.queues import apply_queues
from cytoloop.config import LOCAL_FILE, read_local
from cytoloop.domain.assay import Assay, Channel
from cytoloop.domain.documents import is_storable
from cytoloop.domain.queue_policy import QueuePolicy

ONE_CHANNEL = make_assay(channels=(Channel(name="DNA", plane=0),))
FIELD = np.random.default_rng(0).integers(0, 60000, (2, 12, 10)).astype(np.uint16)


def tiff(**options: Any) -> bytes:
    buffer = io.BytesIO()
    image = options.pop("image", FIELD)
    tifffile.imwrite(buffer, image, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def png(image: Any, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    (picture if mode is None else picture.convert(mode)).save(buffer, format="PNG")
    return buffer.getvalue()


MASK = np.arange(120, dtype=np.uint8).reshape(12, 10) % 3
TIFFS = [
    tiff(), tiff(byteorder=">"), tiff(bigtiff=True), tiff(compression="zlib"), tiff(imagej=True), tiff(ome=True),
    tiff(tile=(16, 16), compression="zlib", predictor=True), tiff(image=MASK), tiff(metadata=None, rowsperstrip=2),
    tiff(image=np.moveaxis(FIELD, 0, -1), planarconfig="contig"),
]  # fmt: skip
PNGS = [png(FIELD[0]), png(MASK), png(MASK, "P"), png(MASK, "1"), png(MASK, "RGB")]
ASSAYS = [TINY.encode(), *(path.read_bytes() for path in sorted(shipped_folder().glob("*.yaml")))]
POLICIES = {
    "queues": {
        "tiny/default": {
            **QueuePolicy(size=8, minutes=30.5, cap=4).document(),
            "experts": [{"name": "Ada", "email": "ada@example.com"}],
            "gold": [],
        }
    }
}
QUEUES = [
    json.dumps(POLICIES).encode(),
    b"team: &team\n- {name: Ada, email: ada@example.com}\nqueues:\n  default:\n    experts: *team\n    size: 40\n",
    b"queues:\n  default:\n    strategy: entropy\n    contest_share: 0.25\n    gold: [a/0, b/1]\n    skipped: retire\n",
]
WORDS = st.sampled_from(
    [
        "&a ", "*a", "<<: *a", "- ", ": ", "\n  ", "{", "}", "[", "]", "!!int ", "!!python/object:os.system ", "!!binary ",
        "2022-13-45", ".nan", ".inf", "1e999", "0x", "0b", "0o", "9" * 400, "~", "'", '"', "|\n", "? ", "%YAML 9.9\n", "---\n", "\t", "\x00",
        '"\\ud800"', "=", "null", "true", "12:30:45", "190:20:30", "queues:", "size: ", "experts: ", "name: ", "channels: ",
    ]
)  # fmt: skip


@st.composite
def reworded(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of these texts with words of YAML put in the place of some of it."""
    content = draw(st.sampled_from(originals)).decode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        content = content[:start] + draw(WORDS) + content[end:]
    return content.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = make_tiny(tmp_path_factory.mktemp("home"))
    made.store.close()
    home = Home(made.settings)
    yield home
    home.close()


@fuzzed
@given(damaged(TIFFS) | st.binary(max_size=100))
def test_any_tiff_is_read_or_refused(folder: Path, content: bytes) -> None:
    _picture(folder / "a.tif", content)


@fuzzed
@given(damaged(PNGS) | st.binary(max_size=100))
def test_any_png_is_read_or_refused(folder: Path, content: bytes) -> None:
    _picture(folder / "a.png", content)


def _picture(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    planes = answered(read_planes, path)
    assert planes is None or (planes.ndim == 3 and planes.dtype in (np.uint8, np.uint16))
    raw = answered(read_raw, [path], ONE_CHANNEL)
    assert raw is None or raw.shape == (1, *raw.shape[1:])
    mask_HW = answered(read_mask, path)
    assert mask_HW is None or (mask_HW.ndim, mask_HW.dtype) == (2, np.uint8)


@fuzzed
@given(reworded(ASSAYS) | damaged(ASSAYS) | st.binary(max_size=60))
def test_any_assay_file_is_read_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "tiny.yaml"
    path.write_bytes(content)
    assay = answered(read_assay, path)
    assert assay is None or isinstance(assay, Assay)
    if assay is not None:
        json.dumps(assay.document(), allow_nan=False)


@fuzzed
@given(reworded(QUEUES) | damaged(QUEUES) | st.binary(max_size=60))
def test_any_queue_file_is_applied_or_refused(home: Home, folder: Path, content: bytes) -> None:
    path = folder / "queues.yaml"
    path.write_bytes(content)
    answered(apply_queues, home, path)


@fuzzed
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(QueuePolicy().document())), v, max_size=4)))  # fmt: skip
def test_any_policy_is_read_or_refused(document: Any) -> None:
    for given_document in (
        document,
        {**POLICIES["queues"]["tiny/default"], "experts": document, "gold": document},
    ):
        policy = answered(QueuePolicy.from_document, given_document, "here")
        if policy is not None:
            assert is_storable(json.dumps(policy.document(), allow_nan=False))


@fuzzed
@given(reworded([*ASSAYS, *QUEUES]) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_any_yaml_is_read_or_refused(content: bytes) -> None:
    answered(parse_yaml, content, "here")


@fuzzed
@given(
    damaged([b'id,plate,well,field,treatment\na,P1,B02,1,none\nb,P1,B03,1,"Torin, 1"\n'])
    | st.binary(max_size=80)
)
def test_any_index_is_read_or_refused(folder: Path, content: bytes) -> None:
    plate = folder / "plate"
    plate.mkdir(exist_ok=True)
    (plate / "a.png").write_bytes(PNGS[0])
    (plate / "index.csv").write_bytes(content)
    records = answered(read_plate, plate, ONE_CHANNEL)
    for record in records or ():
        assert record.image_id == "a"
        assert all(is_storable(text) for text in (record.plate, record.well, record.field, record.treatment))


@fuzzed
@given(damaged([b'{"api_token": "a", "label_studio_url": "http://127.0.0.1:8080"}']) | st.binary(max_size=60))
def test_any_note_of_up_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / LOCAL_FILE).write_bytes(content)
    answered(read_local, folder)
