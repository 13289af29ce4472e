"""The folders of `deploy init`, with real site files, in one process: everything but Flower's own programs."""

from pathlib import Path

from flwr.app import Context, RecordDict

from fedsynth import config
from fedsynth.data import ImageSet
from fedsynth.federation import client_app, server_app
from fedsynth.federation.deploy.folders import Plan, init
from fedsynth.federation.deploy.server_files import load_server
from fedsynth.federation.engines.flower_names import SERVER_NODE, identity
from fedsynth.federation.engines.local import LocalGrid
from fedsynth.federation.rounds import Watch
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import SITE_FILE

NAMES = ("north", "south")


def deployed(tmp_path: Path, images: ImageSet) -> Path:
    """Two hospitals with these images, each with its own patients' names; answers leave at once."""
    out = tmp_path / "out"
    init(out, NAMES, Plan(host="localhost"))
    images.save(tmp_path / "images")
    for name in NAMES:
        path = out / name / "site.toml"
        config.save_toml(path, config.parse_toml(path) | {"images": str(tmp_path / "images")})
        set_policy(out, name, **{"answer-every": 0})
    return out


def set_policy(out: Path, name: str, **changed: object) -> Path:
    """Change keys of a hospital's policy; None takes one away."""
    path = out / name / "policy.toml"
    table = config.parse_toml(path) | changed
    config.save_toml(path, {key: value for key, value in table.items() if value is not None})
    return path


def serve(
    out: Path,
    settings: FederationSettings,
    *,
    run: str = "run",
    without: tuple[str, ...] = (),
    watch: Watch = lambda progress: None,
) -> Path:
    """The server's app and the hospitals', to the end of the run; `without` those that never come."""
    place = load_server(out / "server")
    folder = place.folder / run
    table = settings.to_run_config(folder)
    client_app.forget_everything()
    with identity() as flower:
        grid = LocalGrid(client_app.app, sites=len(NAMES), run_config=table, run=flower, watch=watch)
        for name, (node, context) in zip(NAMES, list(grid._contexts.items()), strict=True):
            context.node_config = {SITE_FILE: str(out / name / "site.toml")}
            if name in without:
                del grid._contexts[node]
        context = Context(
            run_id=flower.run_id, node_id=SERVER_NODE, node_config={}, state=RecordDict(), run_config=table
        )
        server_app.app(grid, context)
    return folder
