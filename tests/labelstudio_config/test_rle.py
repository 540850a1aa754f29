from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_studio_sdk.converter import brush

from cytoloop.domain.errors import MalformedRle, ShapeError
from labelstudio_config import rle
from labelstudio_config.rle import decode_rle, encode_rle

SIZES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60)
MASKS = hnp.arrays(np.bool_, SIZES, elements=st.booleans(), fill=st.booleans())


def as_alpha(mask_HW: np.ndarray) -> np.ndarray:
    return mask_HW.astype(np.uint8) * np.uint8(255)


@given(MASKS)
def test_encodes_byte_for_byte_what_the_sdk_encodes(mask_HW: np.ndarray) -> None:
    assert encode_rle(mask_HW) == encode_rle(as_alpha(mask_HW)) == brush.mask2rle(as_alpha(mask_HW))


@given(MASKS)
def test_decoding_gives_the_mask_back(mask_HW: np.ndarray) -> None:
    assert np.array_equal(decode_rle(encode_rle(mask_HW), *mask_HW.shape), as_alpha(mask_HW))


@given(hnp.arrays(np.uint8, SIZES))
def test_decodes_soft_alpha_as_the_editor_writes_it(alpha_HW: np.ndarray) -> None:
    assert np.array_equal(decode_rle(brush.mask2rle(alpha_HW), *alpha_HW.shape), alpha_HW)


@given(st.integers(1, 8).flatmap(lambda n: hnp.arrays(np.uint8, (n, 3, 4), elements=st.integers(0, 2))))
def test_alpha_is_the_fourth_value_where_colours_differ_from_it(rgba_HWC: np.ndarray) -> None:
    rle = brush.encode_rle(rgba_HWC.reshape(-1))
    assert np.array_equal(decode_rle(rle, *rgba_HWC.shape[:2]), rgba_HWC[..., 3])


@pytest.mark.parametrize("run", [1, 2, 3, 4, 5, 16, 17, 64, 65, 16384, 16385, 32768, 32769, 60000])
def test_runs_on_both_sides_of_each_size_are_the_sdks(run: int) -> None:
    mask_HW = np.zeros((1, run + 1), dtype=bool)
    mask_HW[0, :run] = True
    rle = encode_rle(mask_HW)
    assert rle == brush.mask2rle(as_alpha(mask_HW))
    assert np.array_equal(decode_rle(rle, 1, run + 1), as_alpha(mask_HW))


def pack(text: str) -> list[int]:
    bits = text.replace(" ", "")
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def header(values: int, word: int = 8, sizes: tuple[int, ...] = (3, 4, 8, 16)) -> str:
    return f"{values:032b}{word - 1:05b}" + "".join(f"{s - 1:04b}" for s in sizes)


def test_reads_codes_that_list_their_words_and_other_run_sizes() -> None:
    # two pixels: eight listed words (count 8 in 5 bits), then no more
    listed = "".join(f"{value:08b}" for value in (1, 2, 3, 40, 5, 6, 7, 80))
    assert decode_rle(pack(header(8, sizes=(5, 1, 1, 1)) + "0 00 00111" + listed), 1, 2).tolist() == [
        [40, 80]
    ]
    # a listed word, then a run of seven: the run begins inside the first pixel
    mixed = header(8) + "0 00 000 00001001" + "1 00 110 11001000"
    assert decode_rle(pack(mixed), 2, 1).tolist() == [[200], [200]]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "at least a header"),
        ([0] * 6, "at least a header"),
        (pack(header(8)), "runs give 0 values, expected 8"),
        (pack(header(12)), "12 values, expected 8"),
        (pack(header(0)), "0 values, expected 8"),
        (pack(header(8, word=16)), "words of 16 bits"),
        (pack(header(8) + "1 00 110 11111111"), "runs give 7 values, expected 8"),
        (pack(header(8) + "1 01 1000 11111111"), "runs give 9 values, expected 8"),
        (pack(header(8) + "1 00 111 11111111")[:-1], "runs give 0 values"),
        (pack(header(8) + "0 11 1111111111111111"), "runs give 0 values"),
        ([0, 0, 0, 8, 256], "not a list of bytes"),
        ([0, 0, 0, -8], "not a list of bytes"),
        ([0.5], "not a list of bytes"),
        ("rle", "not a list of bytes"),
        (None, "expected a list"),
        (5, "expected a list"),
        ([0] * 10_000, "expected at most"),
    ],
)
def test_refuses_what_is_no_rle_of_this_size(rle: object, message: str) -> None:
    with pytest.raises(MalformedRle, match=message):
        decode_rle(rle, 1, 2)  # type: ignore[arg-type]


@given(st.data())
def test_a_damaged_rle_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    mask_HW = data.draw(hnp.arrays(np.bool_, (9, 7)))
    rle = encode_rle(mask_HW)
    rle[data.draw(st.integers(0, len(rle) - 1))] = data.draw(st.integers(0, 255))
    try:
        alpha_HW = decode_rle(rle[: data.draw(st.integers(0, len(rle)))], 9, 7)
    except MalformedRle:
        return
    assert alpha_HW.shape == (9, 7)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 2, 2), bool), r"shape \(2, 2, 2\)"),
        (np.zeros((0, 3), bool), "shape"),
        (np.array([[0, 1]], np.uint8), r"values \[0, 1\]"),
        (np.zeros((2, 2), np.int64), "dtype int64"),
    ],
)
def test_refuses_masks_the_editor_could_not_show(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        encode_rle(mask)


@given(hnp.arrays(np.uint8, SIZES), st.integers(1, 9))
def test_a_mask_is_the_same_in_however_many_pieces_it_is_decoded(alpha_HW: np.ndarray, piece: int) -> None:
    coded = brush.mask2rle(alpha_HW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle, "_PIECE", piece)
        assert np.array_equal(decode_rle(coded, *alpha_HW.shape), alpha_HW)


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(1, 12))
def test_what_is_refused_is_refused_in_however_many_pieces(body: bytes, piece: int, pixels: int) -> None:
    coded = pack(header(4 * pixels)[:53])[:6] + list(body)
    outcomes = []
    for size in (piece, 1 << 18):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rle, "_PIECE", size)
            try:
                outcomes.append(decode_rle(coded, 1, pixels).tolist())
            except MalformedRle as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("code", "bits"),
    [("1 00 000 00000000", 14), ("1 00 0000000000000000 00000000", 27)],
    ids=["short", "long"],
)
def test_a_mask_of_as_many_codes_as_may_be_takes_little_memory(code: str, bits: int) -> None:
    side = 400
    values = 4 * side * side
    sizes = (3, 4, 8, 16) if bits == 14 else (16, 16, 16, 16)
    unit = np.array([int(bit) for bit in code.replace(" ", "")], np.uint8)
    head = np.array([int(bit) for bit in header(values, sizes=sizes)], np.uint8)
    data = np.packbits(np.concatenate([head, np.tile(unit, values)]))
    tracemalloc.start()
    try:
        assert not decode_rle(data, side, side).any()
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
