"""Numbers as text, by what they count."""

from pit.demo.measure.catalog import BARS, COLUMNS, LABELS, SHOWN, UNITS, key, unit_of
from pit.demo.measure.units import DECIBELS, LEVELS, RATE, SHARE
from pit.demo.training.data import KINDS


def test_numbers_and_differences_say_what_they_count():
    assert (SHARE.text(0.973), SHARE.difference(-0.012)) == ("97.3%", "-1.2 points")
    assert (DECIBELS.text(25.04), DECIBELS.difference(0.4)) == ("25.0 dB", "+0.4 dB")
    assert (LEVELS.text(1.96), LEVELS.difference(1)) == ("2.0/255", "+1.0/255")
    assert RATE.text(162.2) == "162.2 a second"


def test_only_distances_are_better_if_less():
    assert [unit.less_is_better for unit in (SHARE, DECIBELS, LEVELS, RATE)] == [False, False, True, False]


def test_every_bar_and_unit_belongs_to_a_measure_with_a_label():
    assert set(BARS) | set(UNITS) <= set(LABELS)
    assert len(set(LABELS.values())) == len(LABELS)


def test_every_kind_of_picture_has_words():
    assert list(SHOWN) == list(KINDS) and "words" in COLUMNS


def test_names_of_measures_hold_no_blanks():
    assert key("drawn", "with things") == "drawn_with_things"
    assert not any(" " in name for name in LABELS)


def test_what_is_no_share_is_told_apart():
    assert unit_of("whole") is SHARE and unit_of("drawn_alone") is RATE
    assert unit_of("autoencoder_ground_night") is LEVELS and unit_of("autoencoder_psnr_posed") is DECIBELS
