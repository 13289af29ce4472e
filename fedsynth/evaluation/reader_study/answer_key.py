"""Which images a reader is shown and in which order, and the secret key that tells them apart afterwards.

It draws and remembers; it knows neither how the sheet looks nor what readers answer.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.mask_anatomy import tumour_labels
from fedsynth.errors import ConfigError, ImageSetError
from fedsynth.evaluation.score import Input

SCHEMA = "fedsynth.readers/1"
KEY = "secret/key.json"
"""Beside the sheet, in a folder of its own: a sheet is handed on, the key stays."""

COUNT = 40

Kind = Literal["real", "synthetic"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image of a sheet: its number there, what it is, and its row in the set that it comes from.

    `patient` is empty for synthetic images. `tumour`: its mask has one, which the sheet does not tell.
    """

    number: int
    kind: Kind
    row: int
    case: str
    patient: str
    site: str
    tumour: bool


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a sheet shows. `sheet` names the sheet, so that answers to another one are noticed."""

    sheet: str
    seed: int
    roles: tuple[str, ...]
    inputs: dict[str, Input]
    run: str
    shown: tuple[Shown, ...]

    def save(self, folder: Path) -> Path:
        """Write the key beside the sheet in `folder`."""
        atomic_files.write_text(folder / KEY, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")
        return folder / KEY


def draw_key(
    real: ImageSet,
    synthetic: ImageSet,
    *,
    count: int | None = None,
    seed: int = 0,
    roles: Sequence[str] = ("holdout",),
    run: str = "",
) -> Key:
    """`count` images in their order (40 if there are so many): a coin decides of each whether it is real.

    So every answer that does not come from the image is right half of the time, and knowing all others tells nothing
    about one. Of a patient one image is shown at most: images of one patient would not be independent trials.
    """
    _check_alike(real, synthetic)
    people = np.array(sorted(set(real.select(role=roles).cases["patient"]) - {""}))
    count = _count(count, len(people), len(synthetic))
    inputs = {"real": Input.of(real), "synthetic": Input.of(synthetic)}
    rng = np.random.default_rng([seed, *_content(inputs)])  # another run with this seed has other coins
    owner = real.cases["patient"].where(real.cases["role"].isin(list(roles)), "").to_numpy()
    real_rows = [int(rng.choice(np.flatnonzero(owner == name))) for name in rng.permutation(people)[:count]]
    made_rows = rng.permutation(len(synthetic))[:count].tolist()
    coins = rng.integers(0, 2, count)
    entries = [
        _shown(number, real, "real", real_rows[number - 1])
        if coin
        else _shown(number, synthetic, "synthetic", made_rows[number - 1])
        for number, coin in enumerate(coins.tolist(), start=1)
    ]
    name = hashlib.sha256(repr((seed, roles, count, rng.bytes(16))).encode()).hexdigest()[:12]
    return Key(sheet=name, seed=seed, roles=tuple(roles), inputs=inputs, run=run, shown=tuple(entries))


def load_key(folder: Path) -> Key:
    """The key of the sheet in `folder`."""
    path = folder / KEY
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table.pop("schema") != SCHEMA:
            raise ConfigError("has another schema", file=path, remedy="make the sheet again")
        inputs = {name: Input(**value) for name, value in table.pop("inputs").items()}
        shown = tuple(Shown(**one) for one in table.pop("shown"))
        return Key(inputs=inputs, shown=shown, roles=tuple(table.pop("roles")), **table)
    except FileNotFoundError as error:
        remedy = "give the folder that the sheet was made in"
        raise ConfigError("the key of the sheet is missing", file=path, remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("is damaged or not a key", file=path, remedy="without it answers mean nothing") from error


def tumour_of(images: ImageSet, row: int) -> NDArray[np.uint8] | None:
    """The mask of an image with everything but its tumour taken out; None where there is no tumour."""
    if images.masks is None:
        return None
    mask = np.asarray(images.masks[row])
    tumour: NDArray[np.uint8] = np.where(np.isin(mask, tumour_labels(images.header.mask_labels)), mask, 0)
    return tumour.astype(np.uint8) if tumour.any() else None


def _check_alike(real: ImageSet, synthetic: ImageSet) -> None:
    """Size or channels would give an image away."""
    for what in ("size", "channels"):
        here, there = (getattr(one if what == "size" else one.header, what) for one in (real, synthetic))
        if here != there:
            problem = f"the sets differ in {what}: the real one has {here}, the synthetic one {there}"
            raise ImageSetError(problem, file=synthetic.folder, remedy="bring both to one form with `fedsynth import`")


def _count(asked: int | None, patients: int, made: int) -> int:
    most = min(patients, made)
    count = min(COUNT, most) if asked is None else asked
    if count < 2 or most < 2:
        have = f"{patients} patients of the asked role and {made} synthetic images"
        raise ConfigError(f"a sheet needs two images or more; there are {have}", value=asked)
    if count > most:
        have = f"{patients} patients and {made} synthetic images"
        problem = f"there are too few images for --count: {have}, and a coin might take all from one side"
        raise ConfigError(problem, value=count, remedy=f"give --count {most}, or --role holdout,reference")
    return count


def _shown(number: int, images: ImageSet, kind: Kind, row: int) -> Shown:
    case = images.cases.iloc[row]
    return Shown(
        number=number,
        kind=kind,
        row=int(row),
        case=str(case["case"]),
        patient=str(case["patient"]) if kind == "real" else "",
        site=str(case["site"]) if kind == "real" else "",
        tumour=tumour_of(images, int(row)) is not None,
    )


def _content(inputs: dict[str, Input]) -> bytes:
    return b"".join(bytes.fromhex(one.sha256) for one in inputs.values())
