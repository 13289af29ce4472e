"""The server's Flower app: finds out who the nodes are, asks them, and hands the loop plain replies.

Flower's own error for a site that died names no site; so every message's number is kept with the site it went to.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from fedsynth import atomic_files, config
from fedsynth.errors import ConfigError
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Arrays, Order
from fedsynth.federation.handshake import Agreement, handshake
from fedsynth.federation.messages import (
    HELLO,
    TRAIN,
    Hello,
    Reply,
    content_bytes,
    hello_content,
    order_contents,
    read_hello,
    read_outcome,
)
from fedsynth.federation.released_model import release
from fedsynth.federation.rounds import Progress, Rounds, Watch
from fedsynth.federation.settings import NODES, FederationSettings, from_run_config
from fedsynth.federation.spilled_arrays import ArrayStore
from fedsynth.runs import Run, create_run
from fedsynth.training.trackers import Trackers, open_trackers

JOINING_SECONDS = 60.0  # how long a quorum waits for the others before it begins
PATIENCE_SECONDS = 3600.0
HELLO_SECONDS = 300.0  # a site builds its networks before it greets
LONGEST_PAUSE = 3.0
REFUSALS = "refusals.toml"
PULLED = 16

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation from where it stands to its end, and release the generator."""
    settings, folder = from_run_config(context.run_config)
    run = open_or_create(settings, folder)
    watch: Watch = getattr(grid, "watch", _say)
    with run.locked(), open_trackers(settings.trackers, run) as trackers:
        experiment = experiment_of(run)
        nodes = Path(named) if (named := str(context.run_config.get(NODES, ""))) else None
        refusals = Refusals(run.folder)
        sites = GridSites(grid, settings, experiment, nodes, told=refusals.add, spill=run.folder)
        agreement = remembered(run, handshake(settings, sites))
        end = Rounds(settings, run, agreement, experiment=experiment).go(sites, tracked(watch, trackers))
        release(settings, run.checkpoints, agreement, end, run)


def tracked(watch: Watch, trackers: Trackers) -> Watch:
    """Trackers hear of every round which losses the sites let leave."""

    def told(progress: Progress) -> None:
        watch(progress)
        answered = [reply for reply in progress.replies if reply.reason is None]
        values = {
            f"{reply.site}/{name}": value
            for reply in answered
            for name, value in reply.outcome.metrics.items()
            if name.endswith("_loss")
        }
        trackers.log(progress.round, values | {"sites answered": len(answered)} if progress.replies else {})

    return told


def open_or_create(settings: FederationSettings, folder: Path) -> Run:
    """The run directory, made if it is not there; one of other settings is refused."""
    run = Run(folder=folder)
    if not run.config.is_file():
        return create_run(settings, generator=settings.generator, seed=settings.seed, folder=folder)
    refuse_other_settings(run, settings)
    return run


def refuse_other_settings(run: Run, settings: FederationSettings) -> None:
    """A run goes on as it was begun."""
    was = config.as_table(config.load_toml(FederationSettings, run.config))
    now = config.as_table(settings)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            problem = f"the run was started with {key} = {was.get(key)!r}, not {now.get(key)!r}"
            raise ConfigError(problem, file=run.folder, remedy="resume with the same settings")


def experiment_of(run: Run) -> str:
    """The run's own name, unlike any other's: sites keep its state under it, whatever the folder is called."""
    place = run.folder / "experiment"
    if not place.exists():
        atomic_files.write_text(place, f"{run.folder.name}-{secrets.token_hex(8)}\n")
    return place.read_text(encoding="utf-8").strip()


def remembered(run: Run, agreement: Agreement) -> Agreement:
    """A run that ever met patients is no run of phantoms, whoever is there when it is resumed."""
    mark = run.folder / "met-patients"
    if not agreement.facts.phantoms:
        atomic_files.write_text(
            mark, "its generator has learnt from patients, who may be at sites that are not there now\n"
        )
    return replace(agreement, facts=replace(agreement.facts, phantoms=not mark.exists()))


class GridSites:
    """The sites behind Flower's grid, for one run.

    `registered` lists which node is which hospital, by the key that it signs with. Nobody else is greeted then, and a
    node that gives itself another name is refused. `told` hears every handshake. Replies that are too much for the
    memory wait in the folder `spill`.
    """

    def __init__(
        self,
        grid: Grid,
        settings: FederationSettings,
        experiment: str,
        registered: Path | None = None,
        told: Callable[[Hello], None] = lambda hello: None,
        spill: Path | None = None,
    ) -> None:
        self._registered, self._told, self._spill = registered, told, spill
        self._grid, self._settings, self._experiment = grid, settings, experiment
        self._hellos: dict[int, Hello] = {}
        self._silent: dict[str, tuple[int, float]] = {}  # handshakes without an answer: to whom, and since when
        self._pause = float(getattr(grid, "pause", LONGEST_PAUSE))

    def handshake(self) -> list[Hello]:
        """Wait until all are there; a quorum begins after a minute without the rest. Too many refusals end it."""
        begun, enough = time.monotonic(), None
        while True:
            self._greet()
            now = time.monotonic()
            willing = len({hello.site for hello in self._hellos.values() if hello.facts is not None})
            refused = sum(hello.refused is not None and hello.refused.is_final for hello in self._hellos.values())
            if len(self._hellos) >= self._settings.sites or now - begun > PATIENCE_SECONDS:
                break
            if self._settings.sites - refused < self._settings.quorum:  # whoever else comes
                break
            if willing >= self._settings.quorum:
                enough = now if enough is None else enough
                if now - enough > JOINING_SECONDS:
                    break
            time.sleep(min(1.0, self._pause))
        return sorted(self._hellos.values(), key=lambda hello: hello.site)

    def ask(self, orders: Mapping[str, Order], arrays: Arrays) -> list[Reply]:
        """One round; who does not answer until the deadline is late, who is not there cannot be reached."""
        self._greet(self._settings.deadline, orders.keys())
        nodes = self._nodes()
        reached = {name: order for name, order in orders.items() if name in nodes}
        contents = order_contents(reached, arrays)
        found = {name: Reply(site=name, reason=ErrorCode.UNREACHABLE, asked=False) for name in orders.keys() - reached}
        messages = {name: Message(content, nodes[name], TRAIN) for name, content in contents.items()}
        down = {name: content_bytes(message) for name, message in messages.items()}
        begun, store = time.monotonic(), ArrayStore(self._spill)
        numbers = dict(zip(self._grid.push_messages(messages.values()), messages, strict=True))
        del messages, contents
        for message, seconds in self._arriving(set(numbers), begun, self._settings.deadline):
            name = numbers[message.metadata.reply_to_message_id]
            outcome, reason = read_outcome(message)
            outcome = replace(outcome, arrays=store.keep(outcome.arrays))
            reply = Reply(site=name, outcome=outcome, reason=reason, seconds=seconds, bytes_up=content_bytes(message))
            found[name] = replace(reply, bytes_down=down[name])
        late = time.monotonic() - begun
        for name in reached.keys() - found.keys():
            found[name] = Reply(site=name, reason=ErrorCode.LATE, bytes_down=down[name], seconds=late)
        return [found[name] for name in sorted(found)]

    def _greet(self, deadline: float | None = None, asked: Collection[str] | None = None) -> None:
        """Ask nodes that are new for their names, no longer than a round may take; forget those that are gone.

        In a round only those that may be of an `asked` name are. A node that left a handshake unanswered is waited for
        once: it is greeted again now and then, and its answer is taken when it comes.
        """
        patience = HELLO_SECONDS if deadline is None else min(deadline, HELLO_SECONDS)
        present, now = self._present(), time.monotonic()
        self._hellos = {node: hello for node, hello in self._hellos.items() if node in present}
        self._silent = {number: silent for number, silent in self._silent.items() if silent[0] in present}
        self._hear(self._silent.keys(), present, -1)
        wanted = None if asked is None else {"", *asked} if set(asked) - self._nodes().keys() else set()
        new = {node for node in present.keys() - self._hellos.keys() if wanted is None or present[node] in wanted}
        waiting = dict(self._silent.values())
        self._say_hello([node for node in new if now - waiting.get(node, now) > HELLO_SECONDS])
        self._hear(self._say_hello(new - waiting.keys()), present, patience)

    def _say_hello(self, nodes: Collection[int]) -> list[str]:
        """Send handshakes; their numbers."""
        contents = [hello_content(self._experiment) for _ in nodes]
        messages = [Message(content, node, HELLO) for content, node in zip(contents, nodes, strict=True)]
        numbers = list(self._grid.push_messages(messages)) if messages else []
        self._silent = {number: silent for number, silent in self._silent.items() if silent[0] not in nodes}
        self._silent |= {number: (node, time.monotonic()) for number, node in zip(numbers, nodes, strict=True)}
        return numbers

    def _hear(self, numbers: Collection[str], present: Mapping[int, str], patience: float) -> None:
        """Take the answers to handshakes."""
        waiting = set(numbers)
        for message, _ in self._arriving(waiting, time.monotonic(), patience) if waiting else ():
            node, _ = self._silent.pop(message.metadata.reply_to_message_id)
            hello = read_hello(message)
            if hello.refused is not ErrorCode.BUSY:  # it will be asked again
                self._hellos[node] = hello = _as_registered(hello, present[node])
                self._told(hello)
        if hasattr(self._grid, "forget"):  # it says at once that a node is busy, and keeps no late answers
            self._silent.clear()

    def _present(self) -> dict[int, str]:
        """The nodes that are there, each with the name that it must have; any name where there is no list."""
        there = self._grid.get_node_ids()
        if self._registered is None:
            return dict.fromkeys(there, "")
        listed = config.parse_toml(self._registered) if self._registered.exists() else {}  # before the first came
        names = {int(node): name for name, node in listed.items()}
        return {node: names[node] for node in there if node in names}

    def _nodes(self) -> dict[str, int]:
        """The node of each willing site. Of two that claim one name, the one that came last: the other died."""
        return {hello.site: node for node, hello in self._hellos.items() if hello.facts is not None}

    def _parts(self, numbers: Collection[str]) -> list[Collection[str]]:
        """Numbers to pull at once: not the replies of all sites, where a grid keeps them for us."""
        ordered = sorted(numbers)
        if not self._pause:
            return [ordered]
        return [ordered[start : start + PULLED] for start in range(0, len(ordered), PULLED)]

    def _arriving(self, numbers: set[str], begun: float, deadline: float | None) -> Iterable[tuple[Message, float]]:
        while numbers:
            waited = time.monotonic() - begun
            for some in self._parts(numbers):
                for message in self._grid.pull_messages(some):
                    numbers.discard(message.metadata.reply_to_message_id)
                    yield message, waited
            if not numbers or (deadline is not None and waited > deadline):
                break
            time.sleep(min(self._pause, 0.01 + 0.05 * waited))
        forget: Callable[[Iterable[str]], None] | None = getattr(self._grid, "forget", None)
        if numbers and forget is not None:
            forget(numbers)


class Refusals:
    """`refusals.toml` in the run directory: who will not take part and why, as far as was last heard."""

    def __init__(self, folder: Path) -> None:
        self._path, self._known = folder / REFUSALS, dict[str, str]()
        self._path.unlink(missing_ok=True)

    def add(self, hello: Hello) -> None:
        """Somebody has answered a handshake."""
        if hello.refused is None:
            if self._known.pop(hello.site, None) is not None:
                config.save_toml(self._path, self._known)
            return
        print(f"{hello.site or 'a site'} refuses: {hello.refused.value}", flush=True)  # noqa: T201
        self._known[hello.site or "a site"] = hello.refused.value
        config.save_toml(self._path, self._known)


def read_refusals(folder: Path) -> dict[str, ErrorCode]:
    """What `Refusals` wrote in the run directory."""
    path = folder / REFUSALS
    table = config.parse_toml(path) if path.exists() else {}
    return {site: ErrorCode.parse(str(reason)) for site, reason in table.items()}


def _as_registered(hello: Hello, name: str) -> Hello:
    """The handshake, or a refusal where its key was let in under another name."""
    if not name or hello.site == name:
        return hello
    return Hello(site=name, refused=hello.refused if not hello.site and hello.refused else ErrorCode.NAME)


def _say(progress: Progress) -> None:
    """Lines for the log of an engine that nobody watches."""
    notes = [*progress.notes, *(f"{reply.site}: {reply.note}" for reply in progress.replies if reply.note)]
    for note in notes:
        print(f"round {progress.round} of {progress.rounds}: {note}", flush=True)  # noqa: T201
    if not progress.replies:
        return
    missing = [f"{reply.site} ({reply.reason.value})" for reply in progress.replies if reply.reason is not None]
    answered = len(progress.replies) - len(missing)
    without = f"; without {', '.join(missing)}" if missing else ""
    print(f"round {progress.round} of {progress.rounds}: {answered} sites answered{without}", flush=True)  # noqa: T201
