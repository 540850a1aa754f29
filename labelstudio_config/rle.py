"""Label Studio's brush RLE, as numpy: masks to bytes and back.

The format (thi.ng ``rle-pack``) is a stream of bits, most significant first: the number of values in 32
bits, word size minus 1 in 5 bits (always 7), four run sizes minus 1 in 4 bits each, then codes until that
many values are given. A code is one bit *same*, two bits that choose a run size, a count minus 1 in that
many bits, and then one word (*same* = 1: repeated count times) or count words (*same* = 0). The values are
the flattened RGBA picture; only alpha counts, and a mask is written with R = G = B = alpha.

Where a code starts depends on all codes before it, which is the only thing left to a loop here: it hops
from head to head over a table of the three bits that decide a code's length. The rest is array work over
codes, of which there are a few thousand, and not over bits or pixels.

Legend: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import MalformedRle, ShapeError

_WORD_BITS = 8
_RUN_BITS = (3, 4, 8, 16)
_HEADER_BITS = 32 + 5 + 4 * 4
_SIZES_FIELD = (7 << 16) | (2 << 12) | (3 << 8) | (7 << 4) | 15
"""Word size and run sizes, minus 1 each: the 21 bits after the number of values."""
_LONGEST_RUN = 1 << 16
_LONGEST_CODE_BITS = 3 + 16 + _WORD_BITS
_PIECE = 1 << 18
"""Bytes decoded at a time: a code of 14 bits takes some 300 bytes meanwhile."""


def encode_rle(mask_HW: NDArray[np.bool_] | NDArray[np.uint8]) -> list[int]:
    """Brush RLE of a mask, byte for byte what ``label_studio_sdk.converter.brush.mask2rle`` writes.

    Parameters
    ----------
    mask_HW : ndarray of bool or uint8, shape (H, W)
        True or 255 is drawn, False or 0 is not. Other values are refused: they would become an alpha,
        and a mask of 0 and 1 would be there and all but invisible.

    Returns
    -------
    rle : list of int
        Bytes, 0 to 255.

    Raises
    ------
    ShapeError
        If the array is not 2-D, is empty, has more than 2**30 - 1 pixels, or holds other values.

    Examples
    --------
    >>> encode_rle(np.array([[True, False]]))
    [0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0]
    """
    if mask_HW.ndim != 2 or mask_HW.size == 0 or 4 * mask_HW.size >= 1 << 32:
        raise ShapeError(f"brush mask: shape {mask_HW.shape}, expected (H, W) with 1 to 2**30 - 1 pixels")
    if mask_HW.dtype != np.bool_ and mask_HW.dtype != np.uint8:
        raise ShapeError(f"brush mask: dtype {mask_HW.dtype}, expected bool or uint8")
    flat = np.ascontiguousarray(mask_HW).reshape(-1).view(np.uint8)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    words = flat[ends - 1].astype(np.uint64)
    if mask_HW.dtype == np.bool_:
        words *= 255
    elif not np.isin(words, (0, 255)).all():
        raise ShapeError(f"brush mask: uint8 values {np.unique(words).tolist()}, expected 0 and 255")
    counts = 4 * np.diff(ends, prepend=0)  # of RGBA values

    size_index = np.searchsorted([8, 16, 256], counts, side="left")
    # Runs beyond the largest count are cut into full pieces and a rest of 1 to 65536, which keeps the
    # largest size even where a smaller one would do.
    pieces = (counts + _LONGEST_RUN - 1) // _LONGEST_RUN
    if (pieces > 1).any():
        rests = counts - (pieces - 1) * _LONGEST_RUN
        counts = np.repeat(np.full_like(counts, _LONGEST_RUN), pieces)
        counts[np.cumsum(pieces) - 1] = rests
        words = np.repeat(words, pieces)
        size_index = np.repeat(size_index, pieces)

    count_bits = np.array(_RUN_BITS)[size_index]
    codes = (((4 | size_index) << count_bits) | (counts - 1)).astype(np.uint64) << np.uint64(_WORD_BITS)
    head = np.array([4 * flat.size, _SIZES_FIELD], dtype=np.uint64)
    return _pack(
        np.concatenate([head, codes | words]),
        np.concatenate([[32, 21], 3 + count_bits + _WORD_BITS]),
    )


def _pack(codes: NDArray[np.uint64], bits: NDArray[np.int64]) -> list[int]:
    """Codes of at most 32 bits each, written one after the other, then 1 to 8 bits of padding."""
    ends = np.cumsum(bits)
    starts = ends - bits
    # Each code lies in the 64-bit window that begins with the 32-bit word of its first bit.
    windows = codes << (64 - (starts & 31) - bits).astype(np.uint64)
    index = starts >> 5
    size = int(ends[-1] >> 5) + 2
    # Codes do not overlap, so adding is the same as or-ing; sums stay below 2**32, exact in float64.
    packed = np.bincount(index, (windows >> np.uint64(32)).astype(np.float64), size)
    packed += np.bincount(index + 1, (windows & np.uint64(0xFFFFFFFF)).astype(np.float64), size)
    # The SDK pads a whole byte where none would be needed; equal bytes are worth that one.
    return list(packed.astype(">u4").tobytes()[: int(ends[-1]) // 8 + 1])


def decode_rle(rle: Sequence[int] | NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Alpha of a brush RLE, from the SDK or from the editor (whose strokes have soft edges).

    Parameters
    ----------
    rle : sequence of int
        Bytes, 0 to 255.
    height, width : int
        Size of the picture, pixels.

    Returns
    -------
    alpha_HW : ndarray of uint8, shape (H, W)
        0 not drawn to 255 drawn; 128 and more is what the editor shows as drawn.

    Raises
    ------
    MalformedRle
        If the bytes are no brush RLE of exactly this size: truncated, of another length, word size or
        sum of runs, or longer than any such RLE can be. Memory stays within the picture, the bytes and some 100 MB,
        whatever they claim.

    Examples
    --------
    >>> decode_rle([0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0], 1, 2)
    array([[255,   0]], dtype=uint8)
    """
    value_count = 4 * height * width
    data = _as_bytes(rle, value_count)
    bit_count = 8 * len(data)
    run_bits = _check_header(data, value_count, f"({height}, {width})")

    padded = np.frombuffer(data + bytes(8), dtype=np.uint8)
    bits_of = np.array(run_bits, dtype=np.uint64)
    alpha = np.empty(height * width, dtype=np.uint8)
    given = 0
    for starts in _code_starts(data, run_bits, bit_count):
        windows = _windows(padded, starts)
        is_same = (windows >> np.uint64(31)).astype(bool)
        count_bits = bits_of[(windows >> np.uint64(29)) & np.uint64(3)]
        counts = ((windows << np.uint64(3)) & np.uint64(0xFFFFFFFF)) >> (np.uint64(32) - count_bits)
        counts = counts.astype(np.int64) + 1

        ends = given + np.cumsum(counts)
        last = int(np.searchsorted(ends, value_count))
        is_over = last < len(ends)
        if is_over and ends[last] != value_count:
            raise MalformedRle(f"brush RLE: runs give {ends[last]} values, expected {value_count}")
        used = slice(0, last + 1)  # what follows is padding
        first_word = starts[used] + 3 + count_bits[used].astype(np.int64)
        values, run_ends = _expand(padded, first_word, counts[used], is_same[used], given)
        # Value 4k + 3 is the alpha of pixel k, so a run that ends before value e has ended e // 4 alphas.
        drawn = np.repeat(values, np.diff(run_ends // 4, prepend=given // 4))
        alpha[given // 4 : given // 4 + len(drawn)] = drawn
        if is_over:
            return alpha.reshape(height, width)
        given = int(ends[-1])
    raise MalformedRle(f"brush RLE: runs give {given} values, expected {value_count}")


def _as_bytes(rle: Sequence[int] | NDArray[np.uint8], value_count: int) -> bytes:
    # bytes(5) would be five zeros, so a number must not get that far.
    if not hasattr(rle, "__len__"):
        raise MalformedRle(f"brush RLE: {type(rle).__name__}, expected a list of bytes")
    longest = (_HEADER_BITS + value_count * _LONGEST_CODE_BITS) // 8 + 16
    if len(rle) > longest:
        raise MalformedRle(f"brush RLE: {len(rle)} bytes, expected at most {longest}")
    try:
        return bytes(rle)
    except (TypeError, ValueError) as error:
        raise MalformedRle(f"brush RLE: not a list of bytes ({error})") from None


def _check_header(data: bytes, value_count: int, where: str) -> tuple[int, ...]:
    """The four run sizes in bits, after the number of values and the word size were right."""
    if 8 * len(data) < _HEADER_BITS:
        raise MalformedRle(f"brush RLE: {len(data)} bytes, expected at least a header of 7")
    header = int.from_bytes(data[:7], "big") >> 3  # 56 bits read, 53 belong to the header
    got = header >> 21
    if got != value_count or value_count == 0:
        raise MalformedRle(f"brush RLE: {got} values, expected {value_count} for {where} RGBA")
    word_bits = ((header >> 16) & 31) + 1
    if word_bits != _WORD_BITS:
        raise MalformedRle(f"brush RLE: words of {word_bits} bits, expected {_WORD_BITS}")
    return tuple(((header >> shift) & 15) + 1 for shift in (12, 8, 4, 0))


def _code_starts(data: bytes, run_bits: tuple[int, ...], bit_count: int) -> Iterator[NDArray[np.int64]]:
    """Bit positions of all codes that lie whole within the data, those of a piece of it at a time."""
    step_of = [0] * 4 + [3 + size + _WORD_BITS for size in run_bits]
    position, stop = _HEADER_BITS, bit_count - 2
    while position < stop:
        first_byte = position >> 3
        offset = 8 * first_byte
        # one byte more than the piece: a head may begin with its last bit
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=first_byte)[: _PIECE + 1])
        heads = bits[:-2] << 2
        heads |= bits[1:-1] << 1
        heads |= bits[2:]
        head_at = heads.tobytes()
        starts: list[int] = []
        keep = starts.append
        position -= offset  # in this piece
        end = min(stop - offset, 8 * _PIECE)
        while position < end:
            keep(position)
            head = head_at[position]
            if head > 3:
                position += step_of[head]
            else:
                size = run_bits[head]
                byte = (offset + position + 3) >> 3
                window = int.from_bytes(data[byte : byte + 3].ljust(3, b"\0"), "big")
                count = ((window >> (24 - ((position + 3) & 7) - size)) & ((1 << size) - 1)) + 1
                position += 3 + size + _WORD_BITS * count
        position += offset
        if position > bit_count:
            starts.pop()  # cut off in the middle, or padding
        if starts:
            yield np.array(starts, dtype=np.int64) + offset


def _windows(padded: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The 32 bits that begin at each bit position."""
    byte = positions >> 3
    window = padded[byte].astype(np.uint64)
    for offset in range(1, 5):
        window = (window << np.uint64(8)) | padded[byte + offset]
    window >>= (8 - (positions & 7)).astype(np.uint64)
    low: NDArray[np.uint64] = window & np.uint64(0xFFFFFFFF)
    return low


def _expand(
    padded: NDArray[np.uint8],
    first_word: NDArray[np.int64],
    counts: NDArray[np.int64],
    is_same: NDArray[np.bool_],
    given: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One (value, end) a run, after ``given`` values; codes that list their words become as many runs of one value."""
    if is_same.all():
        ends = given + np.cumsum(counts)
    else:
        words = np.where(is_same, 1, counts)
        owner = np.repeat(np.arange(len(words)), words)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(words) - words, words)
        first_word = first_word[owner] + _WORD_BITS * within
        ends = given + np.cumsum(np.where(is_same, counts, 1)[owner])
    byte, shift = first_word >> 3, first_word & 7
    pair = (padded[byte].astype(np.uint16) << 8) | padded[byte + 1]
    return (pair >> (8 - shift).astype(np.uint16)).astype(np.uint8), ends
