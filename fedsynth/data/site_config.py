"""The schema of `sites/*.toml`: which hospitals there are and where their images come from. It opens no image.

`sites/README.md` describes it for users; a test keeps the two in step.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fedsynth.config import load_toml
from fedsynth.data.partition import Partition
from fedsynth.data.phantoms.appearance import Lesions
from fedsynth.data.phantoms.scanner import CaseMix, Hospital, Scanner, default_hospitals
from fedsynth.data.phantoms.settings import Labels, PhantomSettings, Styles
from fedsynth.data.roles import Shares
from fedsynth.errors import ConfigError

Names = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PhantomTable:
    """`[phantom]`: the cohort to make. The hospitals are those of the file."""

    patients: int = PhantomSettings.patients
    slices: int = PhantomSettings.slices
    size: int = PhantomSettings.size
    seed: int = PhantomSettings.seed
    dimensions: Literal[2, 3] = PhantomSettings.dimensions
    labels: Labels = PhantomSettings.labels
    head: bool = PhantomSettings.head
    styles: Styles = PhantomSettings.styles
    shares: Shares = field(default_factory=Shares)

    def settings(self, n_sites: int) -> PhantomSettings:
        """The same as the settings that make the cohort."""
        return PhantomSettings(**{key: getattr(self, key) for key in self.__dataclass_fields__}, sites=n_sites)


@dataclass(frozen=True, kw_only=True)
class Select:
    """`select`: which images of the set a hospital has. Every given condition must hold; each is one name or several.

    Roles are no condition: a hospital's holdout must come from where its members do.
    """

    site: Names | None = None
    class_: Names | None = None
    patient: Names | None = None

    def __post_init__(self) -> None:
        for key, names in (("site", self.site), ("class", self.class_), ("patient", self.patient)):
            if names in ((), ""):
                raise ConfigError(f"{key!r} must name something, or be left out")


@dataclass(frozen=True, kw_only=True)
class SiteEntry:
    """`[[site]]`: one hospital."""

    name: str
    images: Path | None = None
    select: Select | None = None
    scanner: Scanner | None = None
    lesions: Lesions | None = None
    case_mix: CaseMix | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a site needs a name")

    def hospital(self) -> Hospital:
        """The phantom hospital that the entry describes."""
        looks = {"scanner": self.scanner, "lesions": self.lesions, "case_mix": self.case_mix}
        return Hospital(name=self.name, **{key: value for key, value in looks.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class SitesFile:
    """One federation. Images come from `[phantom]`, from one pooled set `images`, or from a set per `[[site]]`."""

    name: str = ""
    images: Path | None = None
    phantom: PhantomTable | None = None
    partition: str = "natural"
    sites: int | None = None
    seed: int = 0
    site: tuple[SiteEntry, ...] = ()

    def __post_init__(self) -> None:
        Partition.parse(self.partition)
        names = [entry.name for entry in self.site]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError("two sites have one name", value=twice[0])
        if self.sites is not None and (self.site or self.sites < 1):
            problem = "'sites' and [[site]] exclude each other" if self.site else "'sites' must be at least 1"
            raise ConfigError(problem, value=self.sites, remedy="give the number, or name each hospital")
        if self.seed < 0:
            raise ConfigError("'seed' must not be negative", value=self.seed)
        if self.phantom is not None:
            self._check_phantom()
        else:
            self._check_images()

    def _check_phantom(self) -> None:
        if self.images is not None or self.partition != "natural":
            key = "partition" if self.images is None else "images"
            raise ConfigError(f"[phantom] and {key!r} exclude each other: phantom patients belong to their hospital")
        for entry in self.site:
            if entry.images is not None or entry.select is not None:
                key = "select" if entry.images is None else "images"
                raise ConfigError(f"the site {entry.name!r} has {key!r}, but its patients are made by [phantom]")
        assert self.phantom is not None
        self.phantom.settings(len(self.hospitals))

    def _check_images(self) -> None:
        if self.images is None and (not self.site or any(entry.images is None for entry in self.site)):
            remedy = "give 'images' (one set for all), [phantom], or 'images' in every [[site]]"
            lacking = next((f"the site {entry.name!r}" for entry in self.site if entry.images is None), "the file")
            raise ConfigError(f"{lacking} does not say where its images come from", remedy=remedy)
        for entry in self.site:
            for key, value in (("scanner", entry.scanner), ("lesions", entry.lesions), ("case-mix", entry.case_mix)):
                if value is not None:
                    raise ConfigError(f"the site {entry.name!r} has {key!r}, which only phantom hospitals have")
            if self.partition != "natural" and (entry.images is not None or entry.select is not None):
                key = "select" if entry.images is None else "images"
                problem = (
                    f"the site {entry.name!r} has {key!r}, but the partition {self.partition!r} draws its patients"
                )
                raise ConfigError(problem)
        if self.partition != "natural" and self.sites is None and not self.site:
            raise ConfigError(f"the partition {self.partition!r} needs the number of 'sites'")

    @property
    def source(self) -> str:
        """In a few words, where the images come from."""
        if self.phantom is not None:
            return f"{self.phantom.patients} phantoms in {len(self.hospitals)} hospitals"
        paths = dict.fromkeys(str(path) for path in [self.images, *(entry.images for entry in self.site)] if path)
        return ", ".join(paths)

    @property
    def hospitals(self) -> tuple[Hospital, ...]:
        """The phantom hospitals."""
        if self.site:
            return tuple(entry.hospital() for entry in self.site)
        return default_hospitals(PhantomSettings.sites if self.sites is None else self.sites)


def load_sites(path: Path) -> SitesFile:
    """Read a federation; paths in it start at the file's own folder, and its name is by default the file's."""
    read = load_toml(SitesFile, path)
    here = path.resolve().parent
    placed = tuple(replace(entry, images=_placed(here, entry.images)) for entry in read.site)
    return replace(read, name=read.name or path.stem, images=_placed(here, read.images), site=placed)


def default_sites(count: int) -> SitesFile:
    """The embedded federation of `count` phantom hospitals: what a bare number of sites means."""
    return SitesFile(name=f"phantom-{count}", phantom=PhantomTable(), sites=count)


def _placed(folder: Path, images: Path | None) -> Path | None:
    return None if images is None else (folder / images.expanduser()).resolve()
