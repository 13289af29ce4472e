"""From source files to an image set: plan, decode in parallel, write image by image, draw roles, finish.

It knows readers by name only. Memory holds a few sources at a time, whatever the size of the whole.
"""

import warnings
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedsynth import atomic_files
from fedsynth.data.format import HEADER, Header
from fedsynth.data.image_set import ImageSet
from fedsynth.data.importers import ReadOptions, reader
from fedsynth.data.importers.source import Plan
from fedsynth.data.intensity_scaling import Scaling, parse_scaling
from fedsynth.data.label_groups import regroup
from fedsynth.data.parallel import Progress, ordered_map, silent
from fedsynth.data.preprocessing import Item, Missing, Preparation, Prepared, Slicing
from fedsynth.data.roles import ROLES, Shares, Split
from fedsynth.data.split import draw_roles
from fedsynth.data.writer import ImageSetWriter
from fedsynth.errors import ConfigError, SourceError

# What an import learns only while images pass by, and what the header of the set must tell of it.


class Tally:
    """What is known only while images pass by: duplicates, spacings, what is missing, what was left out."""

    def __init__(self) -> None:
        self._file_of: dict[str, Path] = {}
        self._spacings: list[float] = []
        self._missing: defaultdict[str, set[str]] = defaultdict(set)
        self._cut_off: list[str] = []
        self._constant: dict[str, int] = {}
        self.left_out: list[str] = []

    def add(self, prepared: Prepared) -> Iterator[Item]:
        """Count the images of one source and hand them on; a case that was there before is an error."""
        self.left_out += [str(error) for error in prepared.left_out]
        for item in prepared.items:
            case, file = item.row["case"], prepared.source.file
            if case in self._file_of:
                remedy = "every image needs its own name"
                raise SourceError(
                    f"the case stands twice, also in {self._file_of[case]}", file=file, value=case, remedy=remedy
                )
            self._file_of[case] = file
            if item.spacing_mm is not None:
                self._spacings.append(item.spacing_mm)
            for channel in item.missing:
                self._missing[channel].add(prepared.source.patient)
            if item.cut_off:
                self._cut_off.append(case)
            if item.image.min() == item.image.max():
                self._constant[case] = int(item.image.min())
            yield item

    def refuse_empty(self, source: Path) -> None:
        """A set that is black from end to end is the mark of a wrong intensity window, or of masks read as images."""
        if len(self._constant) == len(self._file_of) > 0 and len(set(self._constant.values())) == 1:
            remedy = "look at the files, and at --intensity: the window may lie above or below their values"
            value = next(iter(self._constant.values()))
            raise SourceError("every image would be of the same one value", file=source, value=value, remedy=remedy)

    @property
    def spacing_mm(self) -> float:
        """The median spacing of the images, 1 when no source tells its own."""
        return round(float(np.median(self._spacings)), 6) if self._spacings else 1.0

    def provenance(self) -> dict[str, Any]:
        """What the header must tell so that nobody is misled."""
        told: dict[str, Any] = {"spacing": self._spacing()}
        if self._missing:
            told["missing-sequences-of"] = {channel: sorted(who) for channel, who in sorted(self._missing.items())}
        if self._constant:
            told["constant-images"] = list(self._constant)
        if self._cut_off:
            told["lesions-cut-off"] = self._cut_off
        if self.left_out:
            told["left-out"] = self.left_out
        return told

    def _spacing(self) -> Any:
        n_unknown = len(self._file_of) - len(self._spacings)
        if not self._spacings:
            return "the source does not tell it; spacing-mm counts new pixels"
        smallest, largest = min(self._spacings), max(self._spacings)
        if largest <= 1.01 * smallest and not n_unknown:
            return "that of every image"
        return {
            "note": "images differ; spacing-mm is their median",
            "smallest": round(smallest, 6),
            "largest": round(largest, 6),
            "images-without": n_unknown,
        }


PICTURES = ("folder", "medmnist")
"""Readers that ask whose picture is whose."""

RESAMPLING = "area when shrinking, linear when growing; masks by share of area, lost lesions keep a pixel; padded"


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What a user decides about an import; only public choices, nothing measured on patients.

    `size` is the side of the square or cube. An empty `intensity` means the reader's own default. `labels` regroups
    mask labels (`whole-tumour=edema,core,enhancing`). Without `spacing_mm` every field of view just fits into the
    square; with it all images get that spacing. `missing` says what happens to patients who lack a sequence. Without
    `shares` roles that the source brings are kept, and the default shares are drawn where it brings none. `synthetic`
    images are nobody's: they have neither patient nor site nor role.
    """

    size: int
    options: ReadOptions = field(default_factory=ReadOptions)
    slicing: Slicing = field(default_factory=Slicing)
    intensity: str = ""
    labels: str = ""
    spacing_mm: float | None = None
    missing: Missing = "keep"
    shares: Shares | None = None
    seed: int = 0
    synthetic: bool = False
    skip_corrupt: bool = False
    overwrite: bool = False
    workers: int | None = None
    most: int | None = None
    """At most so many sources, evenly over the plan: a look before the whole."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise ConfigError("the size must be 1 to 4096 pixels", value=self.size)
        if self.options.dimensions not in (2, 3):
            raise ConfigError("the dimensions must be 2 or 3", value=self.options.dimensions)
        if self.spacing_mm is not None and not 0 < self.spacing_mm < 1e6:
            raise ConfigError("the spacing must be a positive number of millimetres", value=self.spacing_mm)
        if self.missing not in ("keep", "leave-out"):
            raise ConfigError("a missing sequence can be 'keep' or 'leave-out'", value=self.missing)
        if self.workers is not None and self.workers < 1:
            raise ConfigError("there must be at least one worker", value=self.workers)
        if self.seed < 0:
            raise ConfigError("the seed must not be negative", value=self.seed)
        if self.synthetic and (self.shares or self.options.site or self.options.patient_pattern):
            problem = "synthetic images have neither patients nor sites nor roles"
            raise ConfigError(problem, remedy="leave --split, --site and --patient-pattern out")


def import_images(
    source: Path, out: Path, *, name: str, settings: ImportSettings, progress: Progress = silent
) -> ImageSet:
    """Read `source` with the reader `name` into an image set at `out`, which appears whole or not at all."""
    atomic_files.refuse_existing(out, marker=HEADER, overwrite=settings.overwrite)
    plan_with = reader(name)
    if not source.exists():
        raise SourceError("there is no such file or folder", file=source)
    try:
        plan = plan_with(source, _reading(settings, name))
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", file=error.filename or source) from error
    _check(plan, source, name)
    if settings.most and len(plan.sources) > settings.most:
        rows = np.linspace(0, len(plan.sources) - 1, settings.most).astype(int)
        plan = replace(plan, sources=[plan.sources[row] for row in rows])
    scaling = parse_scaling(settings.intensity or plan.intensity)
    mask_labels, relabel = plan.mask_labels, np.arange(256).astype(np.uint8)
    if settings.labels:
        mask_labels, relabel = regroup(plan.mask_labels, settings.labels)
    _check_slicing(settings, plan, source, masks=bool(mask_labels))
    shape = (len(plan.channels), *(settings.size,) * settings.options.dimensions)
    tally = Tally()
    prepare = _preparation(plan, settings, scaling, relabel)
    with ImageSetWriter(out, shape, np.uint8, masks=bool(mask_labels), overwrite=settings.overwrite) as writer:
        with closing(_prepared(plan, prepare, settings.workers)) as results, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # it warns about damage that is then raised as an error
            for done, prepared in enumerate(results, start=1):
                for item in tally.add(prepared):
                    writer.append(item.row, item.image, item.mask)
                progress(done, len(plan.sources))
        tally.refuse_empty(source)
        cases, split = _roles(writer.cases(), settings, source, tally)
        header = Header(
            name=out.name,
            origin="synthetic" if settings.synthetic else "real",
            channels=plan.channels,
            classes=plan.classes,
            mask_labels=mask_labels,
            spacing_mm=(tally.spacing_mm,) * settings.options.dimensions,
            split=split,
            provenance=_provenance(plan, settings, name, source, scaling) | tally.provenance(),
        )
        writer.finish(header, cases)
    return ImageSet.load(out, every_voxel=False)


def _reading(settings: ImportSettings, name: str) -> ReadOptions:
    """Nobody is asked whose picture is whose where they are nobody's."""
    if settings.synthetic and name in PICTURES:
        return replace(settings.options, one_image_per_patient=True)
    return settings.options


def _check(plan: Plan, source: Path, name: str) -> None:
    """What can be known before the first file is decoded."""
    if not plan.sources:
        remedy = "check the path, or choose another reader"
        raise SourceError(f"holds nothing that the reader {name!r} can read", file=source, remedy=remedy)
    first: dict[str, tuple[str, str]] = {}
    for one in plan.sources:
        before = first.setdefault(one.patient, (one.site, one.role))
        for what, here, there in zip(("site", "role"), (one.site, one.role), before, strict=True):
            if here != there:
                problem = f"the patient {one.patient!r} has two values of {what!r}: {there!r} and {here!r}"
                remedy = "all images of a patient belong together"
                raise SourceError(problem, file=one.file, remedy=remedy)
        if one.role not in ("", *ROLES):
            raise SourceError("unknown role", file=one.file, value=one.role, remedy=f"known: {', '.join(ROLES)}")


def _check_slicing(settings: ImportSettings, plan: Plan, source: Path, *, masks: bool) -> None:
    """An option that would change nothing is refused: whoever gives it expects other images."""
    slicing, untouched = settings.slicing, Slicing()
    if slicing.keep == "tumour" and not masks:
        raise ConfigError("slices with tumour are wanted, but the source has no masks", file=source)
    if slicing.axis != untouched.axis and plan.dimensions == 2:
        problem = "pictures cannot be cut along another axis"
        raise ConfigError(problem, file=source, value=slicing.axis, remedy="leave --axis out")
    if slicing != untouched and settings.options.dimensions == 3:
        problem = "whole volumes are wanted, and a choice of slices"
        raise ConfigError(problem, file=source, remedy="leave --axis, --every and --slices out, or --dimensions 3")


def _preparation(plan: Plan, settings: ImportSettings, scaling: Scaling, relabel: np.ndarray) -> Preparation:
    return Preparation(
        n_channels=len(plan.channels),
        n_labels=len(plan.mask_labels),
        relabel=relabel if plan.mask_labels else None,
        dimensions=settings.options.dimensions,
        size=settings.size,
        spacing_mm=settings.spacing_mm,
        scaling=scaling,
        slicing=settings.slicing,
        missing=settings.missing,
        skip_corrupt=settings.skip_corrupt,
    )


def _prepared(plan: Plan, prepare: Preparation, workers: int | None) -> Generator[Prepared]:
    """Every source in turn. Names that show a problem stop before the first file is opened."""
    if not prepare.skip_corrupt:
        for source in plan.sources:
            if source.problems:
                raise source.problems[0]
    yield from ordered_map(prepare, plan.sources, workers=workers)


def _roles(
    cases: pd.DataFrame, settings: ImportSettings, source: Path, tally: Tally
) -> tuple[pd.DataFrame, Split | None]:
    if cases.empty:
        why = f"the first: {tally.left_out[0]}" if tally.left_out else "no slice is among those to keep"
        raise SourceError(f"no image is left to write; {why}", file=source)
    if settings.synthetic:
        return cases.assign(patient="", site="", role=""), None
    if settings.shares is None and (cases["role"] != "").any():
        return cases, None
    return draw_roles(cases, settings.shares or Shares(), settings.seed, replace=True)


def _provenance(plan: Plan, settings: ImportSettings, name: str, source: Path, scaling: Scaling) -> dict[str, Any]:
    told: dict[str, Any] = {"reader": name, "source": source.name or str(source), "intensity": str(scaling)}
    if settings.options.dimensions == 2:
        slicing = settings.slicing
        keep = slicing.keep or ("all" if plan.dimensions == 2 else "non-empty")
        told["slices"] = {"every": slicing.every, "keep": keep}
        if plan.dimensions == 3:
            told["slices"]["axis"] = slicing.axis
    if settings.labels:
        told["labels"] = settings.labels
    if settings.spacing_mm:
        told["wanted-spacing-mm"] = settings.spacing_mm
    return told | {"resampling": RESAMPLING} | plan.notes
