"""A table of the volumes in a folder, as the reader `volumes` wants it: a row per scan, a column per channel.

Patients come from the headers of DICOM files, and from the names of all others; a person has to look at the table.
"""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsynth.data.importers.dicom import DICOM_KINDS
from fedsynth.data.importers.volume import kind_of
from fedsynth.errors import SourceError

FILES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
VOLUME_KINDS = (*DICOM_KINDS, *FILES)
MASK = re.compile(r"(^|[-_/ ])(seg|dseg|mask|masks|label|labels|labelstr|roi|gt|segmentation)s?([-_/ ]|$)", re.I)
HEADERS = "the PatientID of the headers; every folder is read as one series, all of one modality as one channel"
PATIENT_ID, MODALITY = "0010|0020", "0008|0060"
WORD = re.compile(r"(?:^|[/_-])(sub-[A-Za-z0-9]+|(?:patient|subject|subj|case|pat|pt|p|s|id)[-_ ]?\d+)", re.I)
FRONT = re.compile(r"^([A-Za-z]+[-_ ]?\d+)")
SESSION = re.compile(r"(ses-[A-Za-z0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of files by column; `patients_from` tells in words how patients were found."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str | Path], ...]
    patients_from: str

    @property
    def described(self) -> str:
        """Patients, scans and channels in words."""
        patients = len({row["patient"] for row in self.rows})
        channels = [name for name in self.columns if name not in ("patient", "mask")]
        masks = ", with masks" if "mask" in self.columns else ""
        return f"{len(self.rows)} scans of {patients} patients, {', '.join(channels)}{masks}"

    def text(self, folder: Path) -> str:
        """As CSV, with paths as seen from `folder`."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            cells = (row.get(name, "") for name in self.columns)
            writer.writerow([os.path.relpath(cell, folder) if isinstance(cell, Path) else cell for cell in cells])
        return written.getvalue()


def tabulate(source: Path, volumes: Sequence[Path]) -> Table:
    """The volumes below `source` as a table."""
    series = {file.parent: file for file in sorted(volumes, reverse=True) if not kind_of(file, FILES)}
    files = [file for file in volumes if kind_of(file, FILES)]
    if series and files:
        remedy = "look at one kind at a time, or write the table by hand"
        raise SourceError("holds DICOM series and other volumes", file=source, remedy=remedy)
    return _of_series(series) if series else _of_files(source, files)


def _of_series(first: Mapping[Path, Path]) -> Table:
    rows: list[dict[str, str | Path]] = []
    channels = set()
    for folder, file in sorted(first.items()):
        patient, modality = _header(folder, file)
        channels.add(modality)
        rows.append({"patient": patient, modality: folder})
    return Table(columns=("patient", *sorted(channels)), rows=tuple(rows), patients_from=HEADERS)


def _header(folder: Path, file: Path) -> tuple[str, str]:
    """Patient and modality of the first file; the folder's name where the header keeps them empty."""
    import SimpleITK

    opened = SimpleITK.ImageFileReader()
    opened.SetFileName(str(file))
    try:
        opened.ReadImageInformation()
    except RuntimeError as error:
        raise SourceError("is no readable DICOM file", file=file, remedy="remove it or mend it") from error
    found = [opened.GetMetaData(key).strip() if opened.HasMetaDataKey(key) else "" for key in (PATIENT_ID, MODALITY)]
    return found[0] or folder.name, found[1].lower() or "image"


def _of_files(source: Path, files: Sequence[Path]) -> Table:
    """A row per patient, or per session of a patient; the rest of a file's name is its channel."""
    names = {file: file.relative_to(source).as_posix().removesuffix(kind_of(file, FILES)) for file in files}
    patients, told = _patients(list(names.values()))
    sessions = [("",) * len(names), tuple(_session(name) for name in names.values())]
    for parts in sessions:
        scans: defaultdict[tuple[str, str], dict[str, str | Path]] = defaultdict(dict)
        for file, patient, session in zip(files, patients, parts, strict=True):
            scan, column = scans[patient, session], _channel(names[file], patient)
            if column in scan:
                twice = (scan[column], file)
                break
            scan |= {"patient": patient, column: file}
        else:
            break
    else:
        problem = f"and {twice[0]} would both be {column!r} of the patient {patient!r}"
        raise SourceError(problem, file=file, remedy="write the table by hand: a row per scan, a column per channel")
    columns = {name for row in scans.values() for name in row} - {"patient", "mask"}
    masks = ("mask",) if any("mask" in row for row in scans.values()) else ()
    return Table(columns=("patient", *sorted(columns), *masks), rows=tuple(scans.values()), patients_from=told)


def _patients(names: Sequence[str]) -> tuple[list[str], str]:
    """The patient of every name, and how it was found: the first way that finds one everywhere, and more than one."""
    ways: dict[str, Callable[[str], str]] = {
        "a word with a number in the names": lambda name: _first(WORD, name),
        "the folders": lambda name: next((part for part in name.split("/")[:-1] if not MASK.search(part)), ""),
        "letters and a number in front of the names": lambda name: _first(FRONT, name.rpartition("/")[2]),
    }
    for told, way in ways.items():
        found = [way(name) for name in names]
        if all(found) and len(set(found)) > 1:
            return found, told
    return [MASK.sub("", name.rpartition("/")[2]) for name in names], "the names of the files"


def _first(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.search(name)
    return found[1] if found else ""


def _session(name: str) -> str:
    """`ses-02` of a BIDS name; else the folder, unless it holds masks alone."""
    folder = name.rpartition("/")[0]
    return _first(SESSION, name) or ("" if MASK.search(folder) else folder)


def _channel(name: str, patient: str) -> str:
    """`mask`, or what is left of the file's name without its patient: `flair` of `sub-01_FLAIR`."""
    if MASK.search(name):
        return "mask"
    rest = SESSION.sub("", name.rpartition("/")[2].replace(patient, ""))
    words = [word for word in re.split(r"[-_ ]+", rest) if word]
    return "-".join([word for word in words if not word.isdigit()][-2:] or words).lower() or "image"
