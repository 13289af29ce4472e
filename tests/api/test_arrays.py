"""Arrays as image sets: what they hold, and one sentence for what does not fit."""

import numpy as np
import pytest

import fedsynth
from fedsynth.errors import FedSynthError

RNG = np.random.default_rng(0)
GREY = RNG.random((6, 8, 8))
WHO = ["a", "a", "b", "b", "c", "c"]
ROLES = ["member"] * 4 + ["holdout"] * 2


def test_patients_make_a_set_real_and_masks_get_names() -> None:
    made = fedsynth.from_arrays(GREY, patients=WHO, roles=ROLES, masks=(GREY > 0.9) * 2, classes=list("xxyyxx"))
    assert (made.header.origin, made.header.classes) == ("real", ("x", "y"))
    assert made.header.mask_labels == ("background", "label-1", "label-2")
    assert made.images.shape == (6, 1, 8, 8)
    assert made.images.dtype == np.float32
    assert made.select(role="holdout").cases["patient"].tolist() == ["c", "c"]
    yes = fedsynth.from_arrays(GREY, masks=(GREY > 0.9) * 255)
    assert (yes.header.mask_labels, int(np.max(yes.masks))) == (("background", "label-1"), 1)
    volumes = fedsynth.from_arrays(np.zeros((2, 1, 4, 4, 4), np.uint8), spacing_mm=2.0)
    assert (volumes.header.origin, volumes.header.spacing_mm) == ("synthetic", (2.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("images", "more", "said"),
    [
        (GREY, {"patients": WHO}, "who was trained on is not known"),
        (GREY, {"patients": WHO[:3], "roles": ROLES}, "6 images.*'patient'.*found 3"),
        (GREY * 255, {}, r"numbers in \[0, 1\]"),
        (GREY[0], {}, "images are"),
        (np.zeros((4, 16, 16, 3)), {}, "move the channels to axis 1"),
        (GREY, {"masks": np.full(GREY.shape, 256)}, "whole numbers from 0 to 255"),
        (GREY, {"masks": GREY}, "whole numbers from 0 to 255"),
        (GREY, {"masks": np.full(GREY.shape, 3), "labels": ("background", "a")}, "a number without a label"),
        (GREY, {"roles": ROLES}, "roles are those of patients"),
        (GREY, {"patients": [*WHO[:5], None], "roles": ROLES}, "an image has no patient"),
        (GREY, {"patients": WHO, "roles": ["member", "holdout"] * 3}, "a"),
    ],
)
def test_what_does_not_fit_is_one_sentence(images: np.ndarray, more: dict[str, object], said: str) -> None:
    with pytest.raises(FedSynthError, match=said):
        fedsynth.from_arrays(images, **more)  # type: ignore[arg-type]
