"""Whose picture is whose, as the user states it: read off the file names, or one picture per patient."""

import re
from dataclasses import dataclass
from pathlib import Path

from fedsynth.errors import ConfigError, SourceError
from fedsynth.images.readers import ReadOptions
from fedsynth.images.readers.gathering import Picture


@dataclass(frozen=True, kw_only=True)
class People:
    """How a picture's patient and site are known: by `pattern` over its name, or, without one, each its own patient."""

    pattern: re.Pattern[str] | None
    site: str

    @classmethod
    def said(cls, options: ReadOptions) -> "People":
        """What the user said; silence is refused, because a patient must never be split."""
        text = options.patient_pattern
        if options.one_image_per_patient and text:
            raise ConfigError("--one-image-per-patient and --patient-pattern contradict each other", value=text)
        if not options.one_image_per_patient and not text:
            problem = "whose picture is whose is not known, and a patient must never be split over members and holdout"
            remedy = "give --patient-pattern REGEX with a group for the patient, "
            raise ConfigError(problem, remedy=remedy + "or say --one-image-per-patient if nobody has two")
        try:
            pattern = re.compile(text) if text else None
        except re.error as error:
            raise ConfigError(f"the patient pattern is no regular expression: {error}", value=text) from error
        if pattern and options.site and "site" in pattern.groupindex:
            raise ConfigError("the patient pattern has a group 'site' already", value=options.site)
        return cls(pattern=pattern, site=options.site)

    def named(self, source: Path, pictures: list[Picture]) -> list[tuple[str, str]]:
        """Patient and site of every picture; no patient has two sites."""
        people = [self._named(picture) for picture in pictures]
        first: dict[str, tuple[str, Picture]] = {}
        for (patient, site), picture in zip(people, pictures, strict=True):
            before, other = first.setdefault(patient, (site, picture))
            if before != site:
                problem = f"the patient {patient!r} has two sites: {before!r} in {other.name} and {site!r} here"
                raise SourceError(problem, file=picture.file, remedy="all images of a patient belong to one hospital")
        return people

    def _named(self, picture: Picture) -> tuple[str, str]:
        if self.pattern is None:
            return picture.case.strip(), self.site
        found = self.pattern.search(picture.name)
        if not found:
            problem = f"the patient pattern {self.pattern.pattern!r} does not match"
            raise SourceError(problem, file=picture.file, value=picture.name, remedy="mend the pattern or the name")
        groups = found.groupdict()
        patient = ((groups["patient"] if "patient" in groups else self._first(found)) or "").strip()
        site = (groups.get("site", self.site) or "").strip()
        if not patient or ("site" in groups and not site):
            problem = f"the patient pattern {self.pattern.pattern!r} leaves patient or site empty"
            raise SourceError(problem, file=picture.file, value=picture.name, remedy="mend the pattern or the name")
        return patient, site

    def _first(self, found: re.Match[str]) -> str | None:
        named = set((self.pattern.groupindex if self.pattern else {}).values())
        numbers = [number for number in range(1, (found.re.groups or 0) + 1) if number not in named]
        return found[numbers[0]] if numbers else found[0]
