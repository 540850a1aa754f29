import numpy as np
import pytest

from cytoloop.domain.errors import ConfigError, ImageUnreadable, ShapeError
from cytoloop.nn.normalisation import Normalisation, normalise

FULL = Normalisation(low=0, high=100)


def test_percentiles_become_zero_and_one_in_each_channel() -> None:
    image = np.stack((np.arange(101.0).reshape(1, 101), 1000 + 5 * np.arange(101.0).reshape(1, 101)))
    out = normalise(image, Normalisation(low=10, high=60))
    assert out.dtype == np.float32
    for channel in out:
        assert channel[0, [10, 60]] == pytest.approx([0.0, 1.0], abs=1e-6)
        assert channel[0, [0, 100]] == pytest.approx([-0.2, 1.8], abs=1e-6)


def test_gain_and_offset_of_the_camera_do_not_matter() -> None:
    image = np.random.default_rng(0).integers(0, 9000, (2, 40, 50)).astype(np.uint16)
    other = image.astype(np.float32) * 1.7 + 300
    np.testing.assert_allclose(normalise(image, FULL), normalise(other, FULL), atol=1e-5)


def test_raw_integers_and_their_floats_give_the_same_and_stay_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (1, 20, 20)).astype(np.uint16)
    as_float = image.astype(np.float32)
    before = as_float.copy()
    np.testing.assert_array_equal(normalise(image, FULL), normalise(as_float, FULL))
    np.testing.assert_array_equal(as_float, before)


def test_a_flat_channel_becomes_zero_and_a_hot_pixel_is_bounded() -> None:
    image = np.full((1, 30, 30), 500.0)
    assert not normalise(image, Normalisation()).any()
    noisy = np.random.default_rng(0).normal(100, 5, (1, 100, 100))
    noisy[0, 3, 3] = 65535
    assert normalise(noisy, Normalisation()).max() == 10.0


def test_percentiles_of_a_large_image_are_sampled_evenly() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 1000)[None, :, None], (1, 1000, 900))
    out = normalise(ramp, Normalisation(low=25, high=75))
    assert out[0, 250, 0] == pytest.approx(0.0, abs=0.01)
    assert out[0, 750, 0] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_is_found(value: float) -> None:
    image = np.ones((1, 1000, 1000), np.float32)
    image[0, 501, 333] = value
    with pytest.raises(ImageUnreadable, match="not finite"):
        normalise(image, FULL)


def test_wrong_shapes_and_numbers_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected"):
        normalise(np.zeros((4, 4)), FULL)
    with pytest.raises(ConfigError, match="percentiles"):
        Normalisation(low=50, high=50)
    with pytest.raises(ConfigError, match="ceiling"):
        Normalisation(ceiling=0.5)


def test_softness_keeps_zero_and_one_and_compresses_what_is_brighter() -> None:
    image = np.array([[[0.0, 1.0, 2.0, 101.0]]])
    out = normalise(image, Normalisation(low=0, high=100 / 3, ceiling=1000, softness=10))
    # 0 stays, the second of four values (1) is 1; asinh(10 x) / asinh(10) of the others
    assert out[0, 0].tolist() == pytest.approx([0.0, 1.0, 1.23056, 2.53845], abs=1e-4)
    assert normalise(-image, Normalisation(low=200 / 3, high=100, softness=10))[0, 0, 3] < 0


def test_weights_from_before_softness_still_load() -> None:
    old = {"low": 1.0, "high": 99.0, "ceiling": 10.0}
    assert Normalisation.from_dict(old) == Normalisation(low=1.0, high=99.0, softness=0.0)
    with pytest.raises(ConfigError, match="softness"):
        Normalisation(softness=-1.0)


def test_round_trip() -> None:
    kept = Normalisation(low=2, high=99)
    assert Normalisation.from_dict(kept.to_dict()) == kept
    with pytest.raises(ConfigError, match="keys"):
        Normalisation.from_dict({"low": 1.0})
