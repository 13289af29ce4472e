"""Styles as plain numbers: to a vector and back, and a public family that no hospital belongs to."""

from dataclasses import replace

import numpy as np
import pytest

from fedsynth.data.phantoms.appearance import Head, Lesions
from fedsynth.data.phantoms.atlas import load_atlas
from fedsynth.data.phantoms.patient import show_plane, style_patient
from fedsynth.data.phantoms.random_fields import Viewport
from fedsynth.data.phantoms.scanner import CaseMix, Scanner, default_hospitals
from fedsynth.data.phantoms.style import Style, draw_style, from_vector, limits, names
from fedsynth.errors import ConfigError

VIEW = Viewport(size=32)
ILL = CaseMix(healthy=0.0, low_grade=0.5, high_grade=0.5)


@pytest.mark.parametrize("head", [False, True])
def test_a_style_is_a_vector_and_back(head: bool) -> None:
    style = draw_style(np.random.default_rng(1), head=head)
    assert from_vector(style.vector(), head=head) == style
    low, high = limits(head=head)
    assert len(names(head=head)) == len(low) == len(style.vector())
    assert np.all((low <= style.vector()) & (style.vector() <= high))
    assert (style.head is not None) == head


def test_every_parameter_of_a_style_is_in_its_vector() -> None:
    parts = {"scanner": Scanner, "lesions": Lesions, "head": Head}
    assert set(names(head=True)) == {(part, name) for part, kind in parts.items() for name in kind.__dataclass_fields__}


def test_no_hospital_belongs_to_the_public_family() -> None:
    low, high = limits(head=False)
    for hospital in default_hospitals(40):
        values = Style(scanner=hospital.scanner, lesions=hospital.lesions).vector()
        outside = {name for name, out in zip(names(head=False), (values < low) | (values > high), strict=True) if out}
        assert {("scanner", "shoulder"), ("lesions", "flair"), ("lesions", "texture")} <= outside, hospital.name


def test_a_style_changes_how_a_patient_looks_and_not_who_it_is() -> None:
    atlas, rng = load_atlas(VIEW.spacing_mm), np.random.default_rng(2)
    styles = [draw_style(rng, head=False) for _ in range(2)]
    styles = [replace(style, lesions=replace(style.lesions, size=1.0, edge=1.0)) for style in styles]
    one, other = (style_patient(0, 4, ILL, style, atlas) for style in styles)
    plane = round(float(one.lesion.centre_mm[2] - 6) / VIEW.spacing_mm + (VIEW.size - 1) / 2)
    (image, mask), (again, same) = (show_plane(patient, atlas, VIEW, plane, "tumour") for patient in (one, other))
    assert one.label == other.label
    assert mask.any()
    assert np.array_equal(mask, same)
    assert np.abs(image.astype(int) - again.astype(int)).mean() > 3
    repeated, _ = show_plane(style_patient(0, 4, ILL, styles[0], atlas), atlas, VIEW, plane, "tumour")
    assert np.array_equal(image, repeated)


def test_lesions_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"the look of lesions: 'flair' must be 0.2 to 3 \(found 4"):
        Lesions(flair=4.0)
