"""Hospitals with their images: who has whom, what is refused, and where the record of the split still holds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet, Shares
from fedsynth.data.phantoms.scanner import Hospital, Scanner
from fedsynth.data.site_config import PhantomTable, Select, SiteEntry, SitesFile
from fedsynth.data.sites import Federation, federation_cases, open_federation
from fedsynth.data.split import draw_roles
from fedsynth.errors import ConfigError, ImageSetError


def cohort(
    prefix: str = "p", sites: str = "AAAAABBBBB", labels: tuple[str, ...] = ("low", "high"), **header: object
) -> ImageSet:
    """Two images of a patient per letter of `sites`; the classes alternate, the roles are drawn."""
    rows = [
        {"case": f"{prefix}{i}-{k}", "patient": f"{prefix}{i}", "site": site, "role": "", "class": labels[i % 2]}
        | {"slice": str(k)}
        for i, site in enumerate(sites)
        for k in range(2)
    ]
    cases, split = draw_roles(pd.DataFrame(rows, dtype=str), Shares(), 0)
    values = {"name": prefix, "origin": "real", "channels": ("t1",), "spacing_mm": (1.0, 1.0), "classes": labels}
    made = Header(**(values | {"split": split} | header))  # type: ignore[arg-type]
    images = np.random.default_rng(0).integers(0, 256, (len(rows), 1, 4, 4), dtype=np.uint8)
    return ImageSet(header=made, cases=cases, images=images)


def saved(folder: Path, **changes: object) -> Path:
    cohort(**changes).save(folder)  # type: ignore[arg-type]
    return folder


def who_has_whom(federation: Federation) -> dict[str, set[str]]:
    return {site.name: set(site.images.cases["patient"]) for site in federation.sites}


def test_institutions_become_hospitals(tmp_path: Path) -> None:
    file = SitesFile(name="f", images=saved(tmp_path / "set"))
    federation = open_federation(file, tmp_path)
    assert who_has_whom(federation) == {"A": {f"p{i}" for i in range(5)}, "B": {f"p{i}" for i in range(5, 10)}}
    whole = cohort()
    assert np.array_equal(federation.sites[1].images.images[:], whole.images[10:])
    assert federation.sites[0].images.header.split == whole.header.split
    assert federation.pooled.cases.equals(whole.cases)
    assert federation.pooled.header == whole.header


def test_a_random_partition_keeps_roles_and_forgets_the_strata_that_it_mixes(tmp_path: Path) -> None:
    file = SitesFile(images=saved(tmp_path / "set"), partition="iid", sites=3)
    federation = open_federation(file, tmp_path)
    whole = cohort()
    role_of = dict(zip(whole.cases["patient"], whole.cases["role"], strict=True))
    assert [site.name for site in federation.sites] == ["site-1", "site-2", "site-3"]
    for site in federation.sites:
        assert set(site.images.cases["site"]) == {site.name}
        assert [role_of[patient] for patient in site.images.cases["patient"]] == list(site.images.cases["role"])
        assert site.images.header.split is None
    assert federation.pooled.cases.equals(whole.cases)
    assert federation.pooled.header.split == whole.header.split


def test_a_random_partition_of_one_hospital_keeps_the_record(tmp_path: Path) -> None:
    file = SitesFile(images=saved(tmp_path / "set", sites="A" * 10), partition="quantity:0.5", sites=2)
    assert all(site.images.header.split is not None for site in open_federation(file, tmp_path).sites)


def test_named_hospitals_of_a_partition(tmp_path: Path) -> None:
    entries = (SiteEntry(name="south"), SiteEntry(name="north"))
    file = SitesFile(images=saved(tmp_path / "set"), partition="iid", site=entries)
    assert [len(patients) for patients in who_has_whom(open_federation(file, tmp_path)).values()] == [5, 5]
    assert list(who_has_whom(open_federation(file, tmp_path))) == ["south", "north"]


def test_ten_sites_stand_in_their_order(tmp_path: Path) -> None:
    file = SitesFile(images=saved(tmp_path / "set"), partition="iid", sites=10)
    assert [site.name for site in open_federation(file, tmp_path).sites] == [f"site-{i}" for i in range(1, 11)]


def test_selections(tmp_path: Path) -> None:
    entries = (
        SiteEntry(name="B"),
        SiteEntry(name="west", select=Select(site="A", class_="low")),
        SiteEntry(name="two", select=Select(patient=("p1", "p3"))),
    )
    federation = open_federation(SitesFile(images=saved(tmp_path / "set"), site=entries), tmp_path)
    assert who_has_whom(federation) == {
        "B": {f"p{i}" for i in range(5, 10)},
        "west": {"p0", "p2", "p4"},
        "two": {"p1", "p3"},
    }
    assert federation.sites[1].images.header.split is not None
    assert len(federation.pooled) == 20


def test_a_selection_of_images_that_merges_strata_loses_the_record(tmp_path: Path) -> None:
    """p0 is 'high+low' in the draw; taken by its low images alone it would pass for one of the 'low' patients."""
    made = cohort(sites="AAAA")
    cases = made.cases.copy()
    cases.loc[0, "class"] = "high"
    made.with_cases(cases).save(tmp_path / "set")
    file = SitesFile(images=tmp_path / "set", site=(SiteEntry(name="low", select=Select(class_="low")),))
    federation = open_federation(file, tmp_path)
    assert who_has_whom(federation) == {"low": {"p0", "p2"}}
    assert federation.sites[0].images.header.split is None
    assert federation.pooled.header.split is None


def test_a_set_per_hospital(tmp_path: Path) -> None:
    entries = (
        SiteEntry(name="here", images=saved(tmp_path / "a", prefix="a", labels=("low", "high"))),
        SiteEntry(name="there", images=saved(tmp_path / "b", prefix="b", sites="XYZ", labels=("high", "none"))),
    )
    federation = open_federation(SitesFile(name="both", site=entries), tmp_path)
    here, there = (site.images for site in federation.sites)
    assert (len(here), len(there), len(federation.pooled)) == (20, 6, 26)
    assert here.header.classes == there.header.classes == federation.pooled.header.classes == ("low", "high", "none")
    assert set(federation.pooled.cases["site"]) == {"here", "there"}
    assert here.header.split is None, "A and B were drawn apart"


def test_a_common_set_and_an_own_one(tmp_path: Path) -> None:
    entries = (SiteEntry(name="A"), SiteEntry(name="abroad", images=saved(tmp_path / "b", prefix="b", sites="Q")))
    federation = open_federation(SitesFile(images=saved(tmp_path / "a", prefix="a"), site=entries), tmp_path)
    assert who_has_whom(federation) == {"A": {f"a{i}" for i in range(5)}, "abroad": {"b0"}}


def refused(tmp_path: Path, message: str, **file: object) -> None:
    with pytest.raises((ImageSetError, ConfigError), match=message):
        open_federation(SitesFile(**file), tmp_path)  # type: ignore[arg-type]


def test_what_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "set")
    a, b, both = SiteEntry(name="A"), SiteEntry(name="B"), SiteEntry(name="C", select=Select(site=("A", "B")))
    refused(tmp_path, "none: there is no such folder; make it with", images=tmp_path / "none")
    refused(tmp_path, "is not an image set", images=tmp_path)
    refused(tmp_path, f"^{path}: a site with no patients: 'D'; known: A, B", images=path, site=(a, SiteEntry(name="D")))
    nothing = SiteEntry(name="n", select=Select(patient="p1", site="B"))
    refused(tmp_path, f"^{path}: a site with no patients: 'n'", images=path, site=(nothing,))
    typing_slip = SiteEntry(name="n", select=Select(class_="hihg"))
    refused(
        tmp_path,
        r"the site 'n': .*no image has the class 'hihg'; did you mean 'high'\?",
        images=path,
        site=(typing_slip,),
    )
    refused(tmp_path, f"^{path}: the patient 'p0' is in two sites: 'A' and 'C'", images=path, site=(a, b, both))
    refused(tmp_path, rf"^{path}: more sites \(11\) than patients \(10\)", images=path, partition="iid", sites=11)
    refused(tmp_path, "2 sites of its own, not 3", images=path, sites=3)
    twice = (SiteEntry(name="x", images=path), SiteEntry(name="y", images=path))
    refused(tmp_path, "the patient 'p0' is in two sites: 'x' and 'y'", site=twice)
    cohort(prefix="s", origin="synthetic").save(tmp_path / "synthetic")
    refused(tmp_path, "the set is synthetic", images=tmp_path / "synthetic")


@pytest.mark.parametrize(
    ("key", "value"), [("channels", ("t2",)), ("spacing_mm", (1.0, 2.0)), ("mask_labels", ("background", "tumour"))]
)
def test_sets_of_different_hospitals_must_agree(tmp_path: Path, key: str, value: object) -> None:
    other = cohort("q", **{key: value}) if key != "mask_labels" else None
    if other is None:
        plain = cohort("q")
        header = Header(**{**vars(plain.header), key: value})
        other = ImageSet(header=header, cases=plain.cases, images=plain.images, masks=np.zeros((20, 4, 4), np.uint8))
    other.save(tmp_path / "q")
    entries = (SiteEntry(name="x", images=saved(tmp_path / "p")), SiteEntry(name="y", images=tmp_path / "q"))
    refused(tmp_path, f"the sets differ in {key.replace('_', '-')}: 'x' has", site=entries)


def test_every_voxel_is_checked_unless_trusted(tmp_path: Path) -> None:
    made = cohort()
    images = np.asarray(made.images, np.float32) / 255
    ImageSet(header=made.header, cases=made.cases, images=images).save(tmp_path / "set")
    images[3] = np.nan
    np.save(tmp_path / "set/images.npy", images)
    refused(tmp_path, "a voxel is not a number", images=tmp_path / "set")
    open_federation(SitesFile(images=tmp_path / "set"), tmp_path, every_voxel=False)


PHANTOMS = SitesFile(
    name="tiny",
    phantom=PhantomTable(patients=5, slices=2, size=16, seed=3),
    site=(SiteEntry(name="b"), SiteEntry(name="a", scanner=Scanner(noise=0.05))),
)


def test_phantoms_are_made_once_and_again_when_anything_changes(tmp_path: Path) -> None:
    federation = open_federation(PHANTOMS, tmp_path, workers=1)
    assert who_has_whom(federation) == {
        "b": {"phantom-00000", "phantom-00002", "phantom-00004"},
        "a": {"phantom-00001", "phantom-00003"},
    }
    made = sorted(tmp_path.iterdir())
    before = (made[0] / "images.npy").stat().st_mtime_ns
    open_federation(PHANTOMS, tmp_path, workers=1)
    assert sorted(tmp_path.iterdir()) == made
    assert (made[0] / "images.npy").stat().st_mtime_ns == before
    other = SitesFile(phantom=PHANTOMS.phantom, site=(SiteEntry(name="b"), SiteEntry(name="a")))
    open_federation(other, tmp_path, workers=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_phantom_set_is_made_again(tmp_path: Path) -> None:
    open_federation(PHANTOMS, tmp_path, workers=1)
    (folder,) = tmp_path.iterdir()
    whole = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(whole[:300])
    open_federation(PHANTOMS, tmp_path, workers=1)
    assert (folder / "images.npy").read_bytes() == whole


@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_is_foretold_is_what_is_made(tmp_path: Path, dimensions: int) -> None:
    table = PhantomTable(patients=5, slices=2, size=16, seed=3, dimensions=dimensions)  # type: ignore[arg-type]
    file = SitesFile(phantom=table, site=PHANTOMS.site)
    known = ["patient", "site", "role", "class"]
    made = open_federation(file, tmp_path, workers=1).pooled.cases
    pd.testing.assert_frame_equal(federation_cases(file)[known], made[known])


def test_the_tables_of_opened_hospitals(tmp_path: Path) -> None:
    file = SitesFile(images=saved(tmp_path / "set"), partition="iid", sites=2)
    cases = federation_cases(file)
    assert sorted(cases["case"]) == sorted(cohort().cases["case"])
    assert set(cases["site"]) == {"site-1", "site-2"}


def test_hospitals_are_plain_values() -> None:
    assert PHANTOMS.hospitals[0] == Hospital(name="b")
