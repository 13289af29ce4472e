"""Sites files: what may stand in one, how its mistakes are named, and that its README tells the truth."""

import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from fedsynth.config import load_toml, save_toml, to_toml
from fedsynth.data.phantoms.appearance import Lesions
from fedsynth.data.phantoms.scanner import CaseMix, Scanner, default_hospitals
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.data.roles import Shares
from fedsynth.data.site_config import PhantomTable, Select, SiteEntry, SitesFile, default_sites, load_sites
from fedsynth.errors import ConfigError

SITES = Path(__file__).parents[2] / "sites"


def load(tmp_path: Path, text: str) -> SitesFile:
    file = tmp_path / "here.toml"
    file.write_text(text)
    return load_sites(file)


def test_paths_start_at_the_file_and_the_name_is_its_own(tmp_path: Path) -> None:
    read = load(tmp_path / ".", 'images = "../data"\n[[site]]\nname = "a"\nimages = "/abs"\n[[site]]\nname = "b"')
    assert read.name == "here"
    assert read.images == tmp_path.parent / "data"
    assert [entry.images for entry in read.site] == [Path("/abs"), None]


def test_names_may_be_one_or_several(tmp_path: Path) -> None:
    read = load(tmp_path, 'images = "x"\n[[site]]\nname = "a"\nselect = {site = "CS", class = ["g2", "g3"]}')
    assert read.site[0].select == Select(site="CS", class_=("g2", "g3"))


def test_what_a_run_writes_down_is_read_back(tmp_path: Path) -> None:
    read = load(tmp_path, 'images = "x"\n[[site]]\nname = "a"\nselect = {class = ["g2"]}\n[[site]]\nname = "b"')
    save_toml(tmp_path / "copy.toml", read)
    assert load_toml(SitesFile, tmp_path / "copy.toml") == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file does not say where its images come from; give 'images'"),
        ("sites = 3", "the file does not say where its images come from"),
        ('[[site]]\nname = "a"\nimages = "x"\n[[site]]\nname = "b"', "the site 'b' does not say where its images"),
        ('image = "x"', r"unknown key 'image'; did you mean 'images'\?"),
        ('images = "x"\n[[sites]]\nname = "a"', "'sites' must be a whole number"),
        ('images = "x"\n[[site]]\nname = "a"\nslect = {}', r"unknown key 'site #1\.slect'; did you mean 'select'\?"),
        ('images = "x"\n[[site]]\nname = "a"\nselect = {role = "member"}', r"unknown key 'site #1\.select\.role'"),
        (
            'images = "x"\n[[site]]\nname = "a"\nselect = {site = []}',
            r"\[site #1\.select\] 'site' must name something",
        ),
        ('images = "x"\n[[site]]\nname = ""', r"\[site #1\] a site needs a name"),
        ('images = "x"\n[[site]]\nname = "a"\n[[site]]\nname = "a"', r"two sites have one name \(found 'a'\)"),
        ('images = "x"\nsites = 0', r"'sites' must be at least 1 \(found 0\)"),
        ('images = "x"\nsites = 2\n[[site]]\nname = "a"', r"'sites' and \[\[site\]\] exclude each other"),
        ('images = "x"\nseed = -1', "'seed' must not be negative"),
        ('images = "x"\npartition = "dirichle:1"', "unknown partition .*did you mean 'dirichlet'"),
        ('images = "x"\npartition = "iid"', "the partition 'iid' needs the number of 'sites'"),
        (
            'images = "x"\npartition = "iid"\n[[site]]\nname = "a"\nselect = {site = "b"}',
            "'a' has 'select', but the part",
        ),
        ('images = "x"\npartition = "iid"\n[[site]]\nname = "a"\nimages = "y"', "'a' has 'images', but the partition"),
        ('images = "x"\n[[site]]\nname = "a"\nscanner = {}', "'a' has 'scanner', which only phantom hospitals have"),
        ('images = "x"\n[[site]]\nname = "a"\ncase-mix = {}', "'a' has 'case-mix', which only phantom hospitals have"),
        ('images = "x"\n[phantom]', r"\[phantom\] and 'images' exclude each other"),
        ('partition = "iid"\n[phantom]', r"\[phantom\] and 'partition' exclude each other"),
        (
            '[phantom]\n[[site]]\nname = "a"\nimages = "x"',
            r"'a' has 'images', but its patients are made by \[phantom\]",
        ),
        ('[phantom]\n[[site]]\nname = "a"\nselect = {}', r"'a' has 'select', but its patients are made by \[phantom\]"),
        ("[phantom]\npatients = 3", r"more sites \(4\) than patients \(3\)"),
        ("sites = 3\n[phantom]\npatients = 2", r"more sites \(3\) than patients \(2\)"),
        ("[phantom]\nsites = 3", "unknown key 'phantom.sites'"),
        ('[phantom]\nlabels = "tumor"', "'phantom.labels' has an unknown value .*did you mean 'tumour'"),
        ('[phantom]\n[[site]]\nname = "a"\nscanner = {nois = 1}', "'site #1.scanner.nois'; did you mean 'noise'"),
        (
            '[phantom]\n[[site]]\nname = "a"\nscanner = {noise = 9}',
            r"\[site #1.scanner\] the scanner's 'noise' must be",
        ),
        ('[phantom]\n[[site]]\nname = "a"\ncase-mix = {healthy = 1}', r"\[site #1\.case-mix\] the case mix of"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"here\.toml: .*" + message):
        load(tmp_path, text)


def test_phantom_hospitals() -> None:
    assert default_sites(3).hospitals == default_hospitals(3)
    assert SitesFile(phantom=PhantomTable()).hospitals == default_hospitals(4)
    own = SitesFile(phantom=PhantomTable(), site=(SiteEntry(name="a", scanner=Scanner(noise=0.04)),)).hospitals
    assert [(hospital.name, hospital.scanner.noise, hospital.case_mix) for hospital in own] == [("a", 0.04, CaseMix())]


def test_the_shipped_phantoms_are_those_of_a_bare_number() -> None:
    shipped = load_sites(SITES / "phantom-4.toml")
    assert shipped.hospitals == default_sites(4).hospitals
    assert shipped.phantom == default_sites(4).phantom
    assert shipped.name == default_sites(4).name


def test_the_shipped_hospitals_differ() -> None:
    hospitals = load_sites(SITES / "phantom-4.toml").hospitals
    assert len({hospital.scanner for hospital in hospitals}) == len({h.case_mix for h in hospitals}) == 4


def test_the_shipped_lgg_sites_are_the_institutions() -> None:
    shipped = load_sites(SITES / "lgg.toml")
    assert (shipped.name, shipped.partition, shipped.sites, shipped.site) == ("lgg", "natural", None, ())
    assert shipped.images == SITES.parent / "data/lgg"


def test_the_phantom_table_has_the_settings_of_phantoms() -> None:
    assert {f.name for f in fields(PhantomSettings)} - {"sites"} == {f.name for f in fields(PhantomTable)}
    assert PhantomTable().settings(4) == PhantomSettings()


def sections() -> dict[str, dict[str, str]]:
    """For each heading of the README: key and default of every row of its table."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in (SITES / "README.md").read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
        elif row := re.fullmatch(r"\| `([a-z0-9-]+)` \| (.+?) \| .+ \|", line):
            found.setdefault(heading, {})[row[1]] = row[2].strip("`")
    return found


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("The file", SitesFile),
        ("[[site]]", SiteEntry),
        ("select", Select),
        ("[phantom]", PhantomTable),
        ("shares", Shares),
        ("[site.scanner]", Scanner),
        ("[site.lesions]", Lesions),
        ("[site.case-mix]", CaseMix),
    ],
)
def test_the_readme_lists_every_key_and_default(heading: str, kind: Any) -> None:
    expected = {}
    for entry in fields(kind):
        key = entry.name.rstrip("_").replace("_", "-")
        if entry.default_factory is not MISSING:
            expected[key] = "as below"
        elif entry.default is MISSING:
            expected[key] = "required"
        else:
            expected[key] = "none" if entry.default is None else to_toml({"x": entry.default}).strip()[4:]
    assert sections()[heading] == expected


def test_the_examples_of_the_readme_can_be_read(tmp_path: Path) -> None:
    blocks = re.findall(r"(?:^ {4}.*\n|^\n)+", (SITES / "README.md").read_text(), flags=re.MULTILINE)
    examples = [text for block in blocks if "=" in (text := re.sub("^ {4}", "", block, flags=re.MULTILINE))]
    assert len(examples) == 3
    for text in examples:
        assert tomllib.loads(text)
        load(tmp_path, text)
