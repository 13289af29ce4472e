"""The small files of each party's folder: settings with explanations, start scripts, units, five lines to read."""

from fedsynth.config import to_toml

START = """\
#!/bin/sh
# {what}. FEDSYNTH names the program where it is not on the path.
exec "${{FEDSYNTH:-fedsynth}}" deploy {command} "$(cd "$(dirname "$0")" && pwd)" "$@"
"""

UNIT = """\
# Copy to /etc/systemd/system/{unit}, then: systemctl enable --now {unit}
[Unit]
Description=fedsynth: {what}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User=fedsynth
UMask=0077
# where the folder lies, and the program of the environment that fedsynth is installed in
WorkingDirectory={at}
Environment=FEDSYNTH=/opt/fedsynth/bin/fedsynth
ExecStart=/bin/sh {at}/start.sh{options}
Restart={restart}
# A known node is refused until its old heartbeat has lapsed, which takes a minute.
RestartSec=75
# The hospitals decided against the run: nothing changes until somebody does.
RestartPreventExitStatus=3
KillMode=control-group
TimeoutStopSec=60
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={at}
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""

SITE = """\
# This hospital's own file. Nothing of it leaves but the name. Paths start at this folder.
{name}

# The image set of real patients: make it with `fedsynth import`, give roles with `fedsynth split`.
# TO DO: say where it lies.
images = "/srv/images/imageset"

# For a release that compares patients with public images: where this hospital's copy of them lies.
# public = "/srv/images/public"

# On this disk, which must outlive restarts: optimisers, losses, the log, egress.jsonl (everything that left).
folder = "state"

# The ledger of what each patient has spent over all runs. One per hospital, for ever: keep it, back it up.
store = "ledger"

policy = "policy.toml"

{server}
authority = "authority.pem"
key = "node.key"
"""

POLICY = """\
# What this hospital allows. Read by this hospital's own fedsynth before any image is; no message can change it.
# A line that begins with # shows the default; of lists and caps, how they are written, for there is none without.

# The largest epsilon of each patient, over all runs of all times, at `delta`. 0 forbids private training too.
max-epsilon = 10.0
delta = 1e-5

# Training without privacy, where the ledger bounds nothing. It excludes max-epsilon: decide for one.
# allow-plain = false

# No run with fewer members than this.
# min-patients = 1

# What a run may use and what may leave, by name. Without a list every name is allowed, [] allows none.
# A number that `metrics` does not name is left out of every reply.
# generators = ["dcgan", "wgan"]
# networks = ["generator"]
# metrics = ["steps", "charged", "generator_loss", "discriminator_loss"]

# Answers of private runs leave every so many seconds after their message came, that their time tells nothing of who
# was drawn. Longer than a round takes, where it can be; work that outlasts it doubles it for the rest of the run.
# answer-every = 10.0

# Whether a promise may rest on a secure sum: it then holds only against a server that colludes with no more hospitals
# than the run says, and not against every server.
# secure-sum = false

# Whether a sampler that was trained on this hospital's patients alone may be released: by a one-shot federation, or by
# an average that one hospital may make up alone (one site is enough for a round, or a declared share is above 0.9).
# Of an average the server receives this hospital's own weights after every round all the same; only what is released
# is averaged.
# allow-one-shot = false

# A plan is everything that the server says of a run. With this line the node takes part only in plans that a person
# here has read and approved: fedsynth site approve site.toml
# approved = "approved.toml"

# Caps on a run, and on what it costs here. A run that asks for more is refused; nothing is capped without a line.
# max-rounds = 100
# max-local-steps = 500
# max-batch = 256
# max-parameters = 10000000
# runs-kept = 20
# minutes-a-day = 600
# megabytes-a-day = 2000

# Whether `fedsynth site health` may open its page, on this machine alone if not told otherwise.
# health-page = true
"""

SERVER = """\
# The server's own file. Paths start at this folder.

# The name by which hospitals reach the server; the certificate carries it.
{host}

# Where the proxy opens. Behind it Flower listens on loopback only, on a port of its own choice.
{address}
{port}

# The run directory, and what is trained.
run = "run"
settings = "federation.toml"

# The embedded proxy is for a test on loopback and the first hour. For more, run nginx with nginx.conf beside this file
# (or compose.yaml), and say so: Flower then listens on loopback alone, on inner-port.
# proxy = "own"
# inner-port = 9443

# What one outsider may hold of the embedded proxy, in seconds and connections.
# [limits]
# handshake = 15.0
# first = 30.0
# idle = 120.0
# body = 300.0
# parting = 5.0
# connections = 400
# per-peer = 64
"""

FEDERATION = """\
# What is trained: the options of `fedsynth simulate`, resolved and sent to every hospital.
# A round costs 9 to 20 seconds of polling besides the training: make rounds long (minutes), and few.
{settings}
# With this table the run is private, and every hospital's ledger is charged. Both numbers are public.
# Without it hospitals must say `allow-plain = true` in their policy.toml, and most should not.
[privacy]
epsilon = 8.0
patients = 100  # TO DO: declare a round number, never counted from the data
"""

HOSPITAL_README = """\
# {name}: a hospital's node of fedsynth
1. Install fedsynth, copy this folder to `{at}` (keep `node.key` readable by its owner alone), \
say in `site.toml` where the images lie, and decide in `policy.toml` what you allow.
2. Check: `fedsynth site check site.toml`. Start: `sh start.sh`, or install `{unit}`; \
only outgoing TCP to {server} is needed.
3. Watch: `state/` holds the log and `egress.jsonl`, everything that left this hospital. \
Stop: Ctrl-C or `systemctl stop`; a restart goes on where it was.
4. What each patient has spent is in `ledger/`: back it up and never delete it.
5. The policy binds what fedsynth does. It does not bind other code that a server sends: see docs/deploy.md.
"""

SERVER_README = """\
# The server of a fedsynth federation, {server}
1. Install fedsynth, copy this folder to `{at}`, set in `federation.toml` what is trained. \
Open port {port} to the hospitals, and no other; for more than a first test with an nginx of yours (`nginx.conf`).
2. Start: `sh start.sh` (hospitals can connect), \
`sh start.sh --run` (they train; it resumes what is there), or install `{unit}`.
3. Watch: its lines, `run/rounds.csv`, `state/*.log`. The result is in `run/`: generator, card, synthetic image set.
4. A hospital is let in by its public key in `hospitals/`, and shut out by deleting it; \
this works while the server runs.
5. Nobody else should have an account on this machine: whoever reaches its loopback can start code at every hospital.
"""


def start_script(what: str, command: str) -> str:
    """`start.sh`: finds its own folder and calls fedsynth."""
    return START.format(what=what, command=command)


def unit(name: str, what: str, *, at: str, options: str = "", restart: str = "always") -> str:
    """A systemd service."""
    return UNIT.format(unit=name, what=what, at=at, options=options, restart=restart)


def line(key: str, value: object) -> str:
    """One line of TOML, quoted as TOML wants it."""
    return to_toml({key: value}).rstrip()
