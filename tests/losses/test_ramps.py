"""Tables computed from the formulas with 40 digits, at steps 0, 6, 20, 40, 79 and 80 of 80."""

import pytest

from napari_semiseg.losses.ramps import cosine_rampup, exp_rampup, linear_rampup, log_rampup, poly, sigmoid_rampup

STEPS = (0, 6, 20, 40, 79, 80)
TABLES = {
    sigmoid_rampup: (
        0.0067379469990854671,
        0.013868641425911237,
        0.060054667895307943,
        0.2865047968601901,
        0.99921905509632391,
        1.0,
    ),
    linear_rampup: (0.0, 0.075, 0.25, 0.5, 0.9875, 1.0),
    cosine_rampup: (0.0, 0.013815039801161699, 0.14644660940672624, 0.5, 0.99961451812036147, 1.0),
    log_rampup: (
        0.0,
        0.3127107212090278,
        0.7134952031398099,
        0.9179150013761012,
        0.9928274927549913,
        0.99326205300091453,
    ),
    exp_rampup: (
        0.0067379469990854671,
        0.0098036550358218283,
        0.023517745856009108,
        0.082084998623898795,
        0.93941306281347579,
        1.0,
    ),
}
POLY = {0: 1.0, 1: 0.99099548341283423, 25: 0.77188950672357044, 50: 0.53588673126814658, 99: 0.015848931924611135}


@pytest.mark.parametrize(("ramp", "table"), TABLES.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_a_ramp_follows_its_formula(ramp, table):
    assert [ramp(step, 80) for step in STEPS] == pytest.approx(table, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("ramp", TABLES)
def test_a_ramp_stays_where_it_is_outside_its_length(ramp):
    assert ramp(-3, 80) == ramp(0, 80)
    assert ramp(1_000, 80) == ramp(80, 80)


@pytest.mark.parametrize("ramp", TABLES)
def test_a_ramp_of_no_length_is_up_from_the_start(ramp):
    assert ramp(0, 0) == 1.0


def test_the_poly_factor_follows_its_formula():
    assert [poly(step, 100) for step in POLY] == pytest.approx(list(POLY.values()), rel=1e-12)
    assert poly(100, 100) == 0.0
    assert poly(25, 100, power=2) == pytest.approx(0.5625, rel=1e-12)


def test_a_warmup_stands_in_place_of_the_polynomial():
    assert [poly(step, 100, warmup=10) for step in (0, 5, 9)] == pytest.approx([0.0, 0.5, 0.9], rel=1e-12)
    assert poly(10, 100, warmup=10) == poly(10, 100)
