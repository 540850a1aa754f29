from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cytoloop.domain.digest import digest_of, digest_of_pixels
from cytoloop.domain.errors import InputError
from cytoloop.domain.simulate import LOOKS, plan_field, simulate_field, simulate_plate
from cytoloop.domain.simulate.camera import Illumination, Registration, _record
from cytoloop.domain.simulate.canvas import Canvas
from cytoloop.domain.simulate.cells import Cells
from cytoloop.domain.simulate.noise import smooth_noise
from cytoloop.domain.simulate.plate import WELLS, _registration
from cytoloop.domain.simulate.presets import PRESETS, REFERENCE_1, Plane
from cytoloop.domain.simulate.shapes import Shape, clump, crescent, disc
from cytoloop.domain.simulate.structures import _is_seen, place_structures

OFFSET, GREEN_UNIT, RED_UNIT = 110.0, 24.0, 10.0


@pytest.fixture(scope="module")
def plate():
    return list(simulate_plate("reference-1", 3, 1))


def first(look, seed=1):
    return next(i for i in range(200) if plan_field("reference-1", seed, i).look == look)


def test_reference_1_is_frozen(plate):
    # If this fails, the preset draws other pixels than it always did. Do not update the digest:
    # give the new pictures a new name and raise SIMULATOR_VERSION.
    facts = [
        [f.image_id, f.treatment, f.look, digest_of_pixels(f.image_CHW), digest_of_pixels(f.truth_HW)]
        for f in plate
    ]
    assert digest_of(facts) == "816c9b9f99f03b0b9517e094b49552b43c3f1a0ca4b662e4cfab8dfc43917c26"


def test_field_does_not_depend_on_how_many_follow(plate):
    alone = simulate_field("reference-1", 1, 2)
    assert alone.image_id == plate[2].image_id
    np.testing.assert_array_equal(alone.image_CHW, plate[2].image_CHW)
    np.testing.assert_array_equal(alone.truth_HW, plate[2].truth_HW)


def test_seeds_and_fields_differ(plate):
    other = simulate_field("reference-1", 2, 0)
    assert not np.array_equal(plate[0].truth_HW, other.truth_HW)
    assert not np.array_equal(plate[0].truth_HW, plate[1].truth_HW)


def test_field_has_the_shape_of_an_opera_image(plate):
    for field in plate:
        assert field.image_CHW.shape == (2, 512, 680)
        assert field.image_CHW.dtype == np.uint16
        assert field.truth_HW.shape == (512, 680)
        assert field.truth_HW.dtype == np.uint8
        assert set(np.unique(field.truth_HW)) <= {0, 1, 2}


def test_classes_look_as_the_paper_describes(plate):
    typical = next(f for f in plate if f.look == "typical")
    green_HW = (typical.image_CHW[0] - OFFSET) / GREEN_UNIT
    red_HW = (typical.image_CHW[1] - OFFSET) / RED_UNIT
    is_phagophore_HW, is_autolysosome_HW = typical.truth_HW == 1, typical.truth_HW == 2
    assert 140 < red_HW[is_phagophore_HW].mean() < 230
    assert 130 < green_HW[is_phagophore_HW].mean() < 230
    assert 90 < red_HW[is_autolysosome_HW].mean() < 165
    rim_HW = ndimage.binary_dilation(is_autolysosome_HW, iterations=4) & (typical.truth_HW == 0)
    assert green_HW[is_autolysosome_HW].mean() < green_HW[rim_HW].mean()


@pytest.mark.parametrize("seed", [1, 2])
def test_plate_is_heterogeneous_in_its_first_32_fields(seed):
    plans = [plan_field("rosella", seed, i) for i in range(32)]
    assert Counter(p.look for p in plans) == dict.fromkeys(LOOKS, 2) | {"typical": 22}


def test_treatment_belongs_to_the_well_and_not_to_its_place_in_the_order():
    plans = [plan_field("rosella", 5, i) for i in range(2 * len(WELLS))]
    by_well = {}
    for p in plans:
        by_well.setdefault(p.well, set()).add(p.treatment)
    assert set(by_well) == set(WELLS)
    assert all(len(treatments) == 1 for treatments in by_well.values())
    assert {(p.treatment, p.look) for p in plans if p.treatment != "DMSO"} == {
        ("bafilomycin", "blocked"),
        ("rapamycin", "induced"),
    }
    places = {i % 32 for i, p in enumerate(plans) if p.treatment == "bafilomycin"}
    assert len(places) > 10  # anywhere in its block of 16 wells
    assert [p.well for p in plans] != sorted(p.well for p in plans)


def test_ids_are_unique_over_plates_and_seeds():
    many = [plan_field("rosella", seed, i) for seed in (1, 2) for i in range(0, 1400, 7)]
    assert len({p.image_id for p in many}) == len(many)
    assert plan_field("rosella", 1, 615).plate == "rosella-s1-p1"
    assert plan_field("rosella", 1, 616).plate == "rosella-s1-p2"
    assert plan_field("rosella", 1, 616).field == "1"


def test_blocked_well_has_hardly_an_autolysosome_and_induced_many():
    blocked = simulate_field("reference-1", 1, first("blocked"))
    induced = simulate_field("reference-1", 1, first("induced"))
    assert np.mean(blocked.truth_HW == 2) < 0.003 < 0.015 < np.mean(induced.truth_HW == 2)
    assert np.mean(blocked.truth_HW == 1) > 0.005


def test_dim_field_is_dark_and_defocused_field_is_soft(plate):
    dim = simulate_field("reference-1", 1, first("dim"))
    soft = simulate_field("reference-1", 1, first("defocused"))
    typical = next(f for f in plate if f.look == "typical")

    def red_of_phagophores(field):
        return (field.image_CHW[1] - OFFSET)[field.truth_HW == 1].mean()

    def sharpness(field):
        one_HW, two_HW, four_HW = (
            ndimage.gaussian_filter(field.image_CHW[1].astype(float), s) for s in (1, 2, 4)
        )
        return np.quantile(one_HW - two_HW, 0.995) / np.quantile(two_HW - four_HW, 0.995)

    assert red_of_phagophores(dim) < 0.5 * red_of_phagophores(typical)
    assert sharpness(soft) < 0.85 * sharpness(typical)


@pytest.mark.parametrize(
    ("preset", "images", "seed", "message"),
    [
        ("rosela", 1, 1, "rosela.*reference-1.*rosella"),
        ("rosella", 0, 1, "0 images"),
        ("rosella", 1, -1, "seed -1"),
    ],
)
def test_plate_refuses_before_the_first_field(preset, images, seed, message):
    with pytest.raises(InputError, match=message):
        simulate_plate(preset, images, seed)


def test_presets_know_every_look():
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert set(preset.looks) == set(LOOKS)


@pytest.mark.parametrize("diameter", [2.0, 3.0, 6.5, 14.0, 24.0])
@pytest.mark.parametrize("draw", [clump, crescent], ids=["clump", "crescent"])
def test_irregular_shape_is_one_piece_with_about_the_wanted_area(draw, diameter):
    sizes = []
    for seed in range(12):
        shape = draw(np.random.default_rng(seed), diameter)
        assert ndimage.label(shape.mask_HW)[1] == 1
        assert not shape.profile_HW[~shape.mask_HW].any()
        assert (shape.profile_HW[shape.mask_HW] > 0).all()
        sizes.append(np.count_nonzero(shape.mask_HW))
    wanted = max(2.0, np.pi * diameter**2 / 4)
    assert 0.5 * wanted < np.median(sizes) < 1.3 * wanted + 1


def test_ring_is_dark_inside_and_its_mask_is_the_whole_disc():
    rng = np.random.default_rng(3)
    shape = disc(rng, 30.0, 1.0, is_ring=True)
    middle = shape.mask_HW.shape[0] // 2
    assert shape.mask_HW[middle, middle]
    assert abs(np.count_nonzero(shape.mask_HW) - np.pi * 15**2) < 60
    inner = shape.profile_HW[middle - 3 : middle + 4, middle - 3 : middle + 4].mean()
    assert inner < 0.5 * np.quantile(shape.profile_HW[shape.mask_HW], 0.9)


def flat_cell(height=20, width=20):
    return Cells(
        owner_HW=np.zeros((height, width), np.int16),
        depth_HW=np.zeros((height, width)),
        green_HW=np.full((height, width), 40.0),
        red_HW=np.full((height, width), 5.0),
        count=1,
    )


def flat_canvas(height=20, width=20, planes=1):
    return Canvas(flat_cell(height, width), planes)


def square(side):
    return Shape(mask_HW=np.ones((side, side), bool), profile_HW=np.ones((side, side)))


def test_canvas_writes_truth_and_light_in_the_same_pixels():
    canvas = flat_canvas()
    assert canvas.place(square(3), (10, 10), value=2, red=100.0, green=0.0, green_left=0.5)
    assert canvas.truth_HW.sum() == 2 * 9
    np.testing.assert_array_equal(canvas.red_HW == 105.0, canvas.truth_HW == 2)
    np.testing.assert_array_equal(canvas.green_HW == 20.0, canvas.truth_HW == 2)


def test_canvas_keeps_light_and_shade_of_a_deep_structure_at_its_depth():
    canvas = flat_canvas(planes=3)
    assert canvas.place(square(3), (10, 10), value=2, red=100.0, green=0.0, green_left=0.5, plane=2)
    np.testing.assert_array_equal(canvas.deep_red_PHW[1] == 100.0, canvas.truth_HW == 2)
    np.testing.assert_array_equal(canvas.deep_green_PHW[1] == -20.0, canvas.truth_HW == 2)
    assert not canvas.deep_red_PHW[0].any()
    assert (canvas.green_HW == 40.0).all()
    assert (canvas.red_HW == 5.0).all()


def test_canvas_keeps_a_gap_unless_asked_to_touch():
    canvas = flat_canvas()
    assert canvas.place(square(3), (10, 10), value=2, red=1.0, green=0.0)
    assert not canvas.place(square(3), (10, 13), value=1, red=1.0, green=1.0)
    assert canvas.place(square(3), (10, 14), value=1, red=1.0, green=1.0)
    assert canvas.place(square(3), (10, 8), value=1, red=1.0, green=1.0, may_touch=True)
    assert (canvas.truth_HW[9:12, 9:12] == 2).all()  # what was there stays
    assert (canvas.truth_HW[9:12, 7:9] == 1).all()


def test_canvas_cuts_what_reaches_over_the_edge():
    canvas = flat_canvas()
    assert canvas.place(square(5), (0, 19), value=1, red=1.0, green=1.0)
    assert np.count_nonzero(canvas.truth_HW) == 9
    assert not canvas.place(square(3), (-9, 40), value=1, red=1.0, green=1.0)


def test_background_structures_take_room_but_are_not_in_the_truth():
    canvas = flat_canvas()
    assert canvas.place(square(3), (10, 10), value=0, red=80.0, green=20.0)
    canvas.glow(square(5), (3, 3), red=9.0, green=9.0)
    assert not canvas.truth_HW.any()
    assert not canvas.place(square(3), (10, 11), value=1, red=1.0, green=1.0)


def test_smooth_noise_is_standard_and_smooth():
    field_HW = smooth_noise(np.random.default_rng(0), (120, 160), 10.0)
    assert abs(field_HW.mean()) < 1e-9
    assert field_HW.std() == pytest.approx(1.0)
    assert np.abs(np.diff(field_HW, axis=1)).max() < 0.6


def test_illumination_falls_from_its_centre_to_the_far_corner():
    light_HW = Illumination(centre=(0.5, 0.4), loss=0.3).field((50, 100))
    assert light_HW[25, 40] == pytest.approx(1.0)
    assert light_HW.min() == pytest.approx(0.7)
    assert light_HW[0, 99] == light_HW.min()


def test_noise_is_that_of_photons_above_a_camera_offset():
    camera = replace(REFERENCE_1.camera, read_noise=1e-9)
    recorded_HW = _record(np.random.default_rng(0), np.full((200, 200), 1000.0), camera).astype(float)
    electrons = 1000.0 / camera.grey_per_electron
    assert recorded_HW.mean() == pytest.approx(camera.offset + 1000.0, rel=0.005)
    assert recorded_HW.std() == pytest.approx(camera.grey_per_electron * electrons**0.5, rel=0.02)


def test_expectation_off_in_the_last_bit_gives_the_same_picture():
    grey_HW = np.random.default_rng(1).uniform(50.0, 4000.0, (64, 64))
    one = _record(np.random.default_rng(2), grey_HW, REFERENCE_1.camera)
    other = _record(np.random.default_rng(2), np.nextafter(grey_HW, np.inf), REFERENCE_1.camera)
    np.testing.assert_array_equal(one, other)


def test_expert_draws_what_depth_leaves_bright_enough():
    planes = (
        Plane(share=0.5, sigma=0.0, light=1.0),
        Plane(share=0.5, sigma=2.0, light=0.5),
    )
    model = replace(REFERENCE_1.structures, planes=planes, least_seen=40.0)
    assert _is_seen(40.0, 3.0, 0, model, 0.0)
    assert not _is_seen(39.0, 3.0, 0, model, 0.0)
    assert _is_seen(160.0, 8.0, 1, model, 0.0)  # half the light, spread to half the height
    assert not _is_seen(159.0, 8.0, 1, model, 0.0)
    assert not _is_seen(160.0, 4.0, 1, model, 0.0)  # a smaller one is spread further
    assert _is_seen(80.0, 8.0, 0, model, 2.0)  # as is one of a defocused field
    assert not _is_seen(79.0, 8.0, 0, model, 2.0)


def test_structure_on_its_way_has_the_class_its_green_says():
    model = replace(
        REFERENCE_1.structures,
        planes=(Plane(share=1.0, sigma=0.0, light=1.0),),
        fading_share=1.0,
        touching_share=0.0,
        ambiguous=0.0,
        green_only=0.0,
        unfocused=0.0,
        debris=0.0,
        haze=(0.0, 0.0),
    )
    cells = flat_cell(200, 200)
    canvas = Canvas(cells)
    rng = np.random.default_rng(4)
    place_structures(rng, cells, canvas, model, REFERENCE_1.looks["typical"], defocus=0.0)
    labels_HW, count = ndimage.label(canvas.truth_HW)
    assert count > 20
    for label in range(1, count + 1):
        is_here_HW = labels_HW == label
        red = canvas.red_HW[is_here_HW].sum() - 5.0 * is_here_HW.sum()
        green = canvas.green_HW[is_here_HW].sum() - 40.0 * is_here_HW.sum()
        kind = canvas.truth_HW[is_here_HW].max()
        assert model.fading[0] <= green / red <= model.fading[1]
        assert kind == (1 if green / red > model.fading_limit else 2)


def test_cameras_of_a_plate_are_off_by_a_pixel_and_differently_over_the_field():
    camera = REFERENCE_1.camera
    one = _registration("reference-1", 1, 0)
    assert camera.camera_shift[0] <= np.hypot(one.rows, one.columns) <= camera.camera_shift[1]
    assert max(abs(one.stretch), abs(one.turn)) <= camera.camera_distortion
    assert one != _registration("reference-1", 1, 1)


def test_registration_moves_and_stretches_about_the_centre():
    columns_HW = np.tile(np.arange(41.0), (31, 1))
    moved_HW = Registration(rows=0.0, columns=0.5, stretch=0.1, turn=0.0).seen(columns_HW)
    assert moved_HW[15, 20] == pytest.approx(20.5)  # shows what lies half a pixel further
    assert moved_HW[15, 30] == pytest.approx(31.5)
    turned_HW = Registration(rows=0.0, columns=0.0, stretch=0.0, turn=0.1).seen(columns_HW)
    assert turned_HW[15, 20] == pytest.approx(20.0)
    assert turned_HW[25, 20] == pytest.approx(21.0)
