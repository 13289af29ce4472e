"""Whether a hospital is ready to join: its images, policy, ledger, certificates, disk and clock, one finding each.

It reads and reports; it leaves nothing behind and tells no number of patients.
"""

import os
import shutil
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import httpx

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, FedSynthError, ImageSetError, RefusedError
from fedsynth.federation.approval import approved
from fedsynth.federation.deploy.certificate_checks import read_authority, read_node_key
from fedsynth.federation.deploy.flower_programs import LOOPBACK
from fedsynth.federation.deploy.web_proxies import unusable_proxy, web_proxy
from fedsynth.federation.ledger_copies import refuse_older
from fedsynth.federation.policy import Policy, load_policy
from fedsynth.federation.site_context import SiteFile, load_site_file
from fedsynth.models.image_pool import open_public
from fedsynth.privacy.accounting import rounded_up
from fedsynth.privacy.ledger import Ledger, folder_of, read_ledger, sites_of
from fedsynth.privacy.patient_tags import SALT

FREE_BYTES = 2**30
SECONDS = 5.0  # to wait for the server
AHEAD, BEHIND = 5.0, 300.0  # seconds by which a clock may differ: what Flower lets a signed request be off
State = Literal["ok", "problem", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. A note is neither good nor bad: something could not be looked at from here."""

    what: str
    state: State
    text: str


class _NoteError(Exception):
    """Raised by a check that has nothing to judge."""


@dataclass(frozen=True, kw_only=True)
class _Server:
    """What one look at the server gave: its clock, or why it was not reached; and which web proxy led there."""

    apart: float | None = None
    problem: str = ""
    remedy: str = "ask who runs it for the authority and the name that it has now"
    note: str = ""
    way: str = ""


def check_site(path: Path) -> list[Finding]:
    """Everything that `path`, a site's file, points to. A file that cannot be read at all is an error."""
    site = load_site_file(path)
    server = _look_at(site)
    checks: dict[str, Callable[[], str]] = {
        "policy": lambda: _policy(site),
        "images": lambda: _images(site),
        **({} if site.public is None else {"public": lambda: _public(site)}),
        "ledger": lambda: _ledger(site),
        "budget": lambda: _budget(site),
        "folder": lambda: _disk(site.folder, "the site's folder"),
        "store": lambda: _disk(site.ledger_store, "the ledger's store"),
        "rights": lambda: _rights(site, path),
        "certificates": lambda: _certificates(site),
        "server": lambda: _server(site, server),
        "clock": lambda: _clock(site, server),
    }
    return [_finding(what, check) for what, check in checks.items()]


def in_order(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(one.state != "problem" for one in findings)


def _finding(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, state="ok", text=check())
    except FedSynthError as error:
        return Finding(what=what, state="problem", text=str(error))
    except _NoteError as note:
        return Finding(what=what, state="note", text=str(note))


def _policy(site: SiteFile) -> str:
    policy = load_policy(site.policy)
    if reason := policy.forbids_everything():
        raise RefusedError(f"no run could ever pass: {reason}", file=site.policy)
    approval = "" if policy.approved is None else f", of {len(approved(policy.approved))} approved plan(s) alone"
    return f"{_in_words(policy)}{approval} ({site.policy})"


def _in_words(policy: Policy) -> str:
    if policy.allow_plain:
        return "training without privacy is allowed"
    if policy.max_epsilon is None:
        return f"private training alone, at any epsilon and a delta of at most {policy.delta:g}"
    return f"private training alone, epsilon {policy.max_epsilon:g} per patient over all runs at delta {policy.delta:g}"


def _images(site: SiteFile) -> str:
    images = ImageSet.load(site.images)
    if images.header.origin != "real":
        raise ImageSetError("these images are synthetic", file=site.images, remedy="name the set of real ones")
    members = images.patients.query("role == 'member'")
    if not len(members):
        raise ImageSetError("no patient is a member", file=site.images, remedy="give roles with: fedsynth split")
    try:
        policy = load_policy(site.policy)
    except FedSynthError:  # has a finding of its own
        policy = Policy()
    policy.check_patients(len(members))
    roles = " and ".join(role for role in ("member", "holdout", "reference") if role in set(images.cases["role"]))
    size = " x ".join(map(str, images.size))
    return f"{size}, {len(images.header.channels)} channel(s), roles {roles} ({site.images})"


def _public(site: SiteFile) -> str:
    """The public set can be read, and no image of this site is in it at 8 bits; other images of its patients may be.

    This is where a hospital learns it: in a run an answer that depended on it would tell the server.
    """
    assert site.public is not None
    found = open_public(site.public)
    found.refuse_shared(ImageSet.load(site.images, every_voxel=False))
    size = " x ".join(map(str, found.images.size))
    return f"{found.images.header.name}, {size}, sha256 {found.digest[:16]}... ({site.public})"


def _ledger(site: SiteFile) -> str:
    """No older than a run, and readable by its owner alone: whoever reads it can try names of patients against the
    salt."""
    store = site.ledger_store
    path = store / folder_of(site.name) / "ledger.jsonl"
    charges = read_ledger(path)
    refuse_older(path, charges, site.folder)
    if not store.exists():
        return f"will be made ({store})"
    for one in (store, store / SALT):
        if one.exists() and (rights := stat.S_IMODE(one.stat().st_mode)) & 0o077:
            remedy = f"chmod {'700' if one.is_dir() else '600'} {one}"
            raise FedSynthError("others on this machine can open it", file=one, value=f"{rights:o}", remedy=remedy)
    runs = len({charge.run for charge in charges})
    return f"{runs} run(s) were charged ({path})" if charges else f"nothing was charged yet ({path})"


def _budget(site: SiteFile) -> str:
    cap = load_policy(site.policy).cap
    if cap is None:
        raise _NoteError("the policy sets no max-epsilon: nothing to keep within")
    store = site.ledger_store
    account = Ledger(site.name, store).account(cap.delta) if sites_of(store) else None  # where none is, no lock is left
    spent = 0.0 if account is None else account.spent.epsilon
    if spent >= cap.epsilon:
        problem = f"epsilon {rounded_up(spent, 3):g} of {cap.epsilon:g} is spent: no private run fits any more"
        raise RefusedError(problem, remedy="more patients, or a higher max-epsilon")
    return f"epsilon {rounded_up(spent, 3):g} of {cap.epsilon:g} is spent"


def _disk(folder: Path, what: str) -> str:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    with atomic_files.told_when_unwritable(folder):
        handle, name = tempfile.mkstemp(dir=nearest, prefix=".check.")
        try:
            os.write(handle, b"x")
            os.fsync(handle)
        finally:
            os.close(handle)
            Path(name).unlink()
    free = shutil.disk_usage(nearest).free
    if free < FREE_BYTES:
        problem = f"{what} has {free / 2**30:.2f} GiB left"
        raise FedSynthError(problem, file=folder, remedy=f"free at least {FREE_BYTES / 2**30:g} GiB")
    return f"can be written, {free / 2**30:.0f} GiB left ({folder})"


def _rights(site: SiteFile, path: Path) -> str:
    """Whoever can write these files, or replace them in their folders, decides for the hospital."""
    named = (path, site.policy, site.authority, site.key, site.folder, site.ledger_store)
    own = [one for one in named if one is not None]
    with suppress(FedSynthError):  # a policy that cannot be read has a finding of its own
        own += filter(None, [load_policy(site.policy).approved])
    for one in _changed_by(stat.S_IWOTH, own):
        raise FedSynthError("everybody on this machine can change it", file=one, remedy=f"chmod o-w {one}")
    read = [one for one in (site.images, site.public) if one is not None]
    for one in _changed_by(stat.S_IWOTH, read):  # a share of images may be another department's
        raise _NoteError(f"everybody on this machine can change {one}")
    for one in _changed_by(stat.S_IWGRP, [*own, *read]):
        raise _NoteError(f"its group can change {one}: if others are in it, chmod g-w")
    return f"its owner alone can change what lies in {path.resolve().parent}"


def _changed_by(right: int, paths: Iterable[Path]) -> list[Path]:
    """Those of the paths, of all folders above them and of what lies in them that others with this right can change.

    Whoever can rename a folder, however far above, can put another in its place.
    """
    there = [path.resolve() for path in paths if path.exists()]
    inside = [one for folder in there if folder.is_dir() for one in folder.glob("*")]
    above = {folder for one in there for folder in one.parents}
    modes = {one: one.stat().st_mode for one in {*there, *above, *inside} if one.exists()}
    return sorted(one for one, mode in modes.items() if mode & right and not mode & stat.S_ISVTX)  # /tmp has that bit


def _certificates(site: SiteFile) -> str:
    if site.authority is None and site.key is None and site.server is None:
        raise _NoteError("no server, authority or key is named: the site takes part in simulations only")
    if site.authority is None or site.key is None:
        missing = "authority" if site.authority is None else "key"
        raise ConfigError(f"the site's file names no {missing}", remedy="take both from `fedsynth deploy init`")
    trusted = read_authority(site.authority, now=datetime.now(UTC))
    read_node_key(site.key)
    return f"valid until {min(one.not_valid_after_utc for one in trusted).date()} ({site.authority})"


def _look_at(site: SiteFile) -> _Server:
    """Ask the server for a sign of life over TLS, trusting the site's authority alone, by the library of Flower's node:
    so the check goes through the web proxy that the node will go through."""
    if site.server is None or site.authority is None:
        return _Server(note="no server and authority are named")
    host, port = site.address
    direct, way = host in LOOPBACK.split(","), web_proxy(host)
    if not direct and (unusable := unusable_proxy()):
        return _Server(problem=unusable, remedy="name an HTTP proxy; signs in a password are written as in %2F")
    try:
        context = ssl.create_default_context(cafile=site.authority)
        with httpx.Client(verify=context, timeout=SECONDS, trust_env=not direct) as client:
            asked = datetime.now(UTC)
            answer = client.get(f"https://{f'[{host}]' if ':' in host else host}:{port}/health")
            answered = datetime.now(UTC)
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        if (refused := _refused_certificate(error)) is not None:
            return _Server(problem=f"its certificate is refused: {refused.verify_message}{way}")
        return _Server(note=f"not reached: {str(error) or type(error).__name__}{way}")
    theirs = _date(answer.headers.get("date"))
    return _Server(apart=None if theirs is None else seconds_apart(theirs, asked=asked, answered=answered), way=way)


def _refused_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def seconds_apart(theirs: datetime, *, asked: datetime, answered: datetime) -> float:
    """By how much this clock is ahead of theirs (behind: negative), as far as waiting for the answer cannot explain."""
    ahead, behind = (asked - theirs).total_seconds(), (theirs - answered).total_seconds()
    return ahead if ahead > 0 else -behind if behind > 0 else 0.0


def _server(site: SiteFile, found: _Server) -> str:
    if found.problem:
        raise ConfigError(found.problem, file=site.server, remedy=found.remedy)
    if found.note:
        raise _NoteError(found.note)
    return f"answers under a certificate of the authority ({site.server}{found.way})"


def _clock(site: SiteFile, server: _Server) -> str:
    """Against the server's where it told its time, else against the newest file that this site wrote."""
    now = datetime.now(UTC)
    if server.apart is not None:
        if server.apart > AHEAD or server.apart < -BEHIND:
            way = "ahead of" if server.apart > 0 else "behind"
            problem = (
                f"the clock is {abs(server.apart):.0f} s {way} the server's, which would refuse what this site signs"
            )
            raise FedSynthError(problem, remedy="synchronise it (NTP)")
        return f"{now:%Y-%m-%d %H:%M} UTC, as the server's"
    newest = max((path.stat().st_mtime for path in site.folder.glob("*") if path.is_file()), default=0.0)
    if datetime.fromtimestamp(newest, UTC) > now + timedelta(minutes=1):
        raise FedSynthError("the clock is behind files that this site has written", remedy="synchronise it (NTP)")
    return f"{now:%Y-%m-%d %H:%M} UTC, not compared with the server's"


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
