"""The configuration of an nginx before Flower's server, and of containers for both: what IT departments run already.

It passes what the embedded proxy passes, by the same list, and answers 403 to everything else.
"""

from fedsynth.federation.deploy.proxy import LARGEST_BODY, POSTED

NGINX = """\
# Reverse proxy of a fedsynth server, for the http block of an nginx that you run: /etc/nginx/conf.d/fedsynth.conf.
# In server.toml say: proxy = "own". Flower then listens on 127.0.0.1:{inner_port} and nothing else is opened.
# Check: nginx -t. After `fedsynth deploy renew`, or any change: nginx -s reload; connections that stand go on.

# Exactly the requests of hospitals' nodes, as they were sent: no query, no escapes, nothing to normalise.
map "$request_method $request_uri" $fedsynth_passes {{
    default 0;
    "~^POST /v1/fleet/({posted})$" 1;
    "~^(GET|HEAD) /health$" 1;
}}

# Per address. Where many hospitals share one (a common proxy or NAT), raise both. A node sends a few hundred small
# requests at the end of a round and one every three seconds between.
limit_conn_zone $binary_remote_addr zone=fedsynth_connections:10m;
limit_req_zone $binary_remote_addr zone=fedsynth_requests:10m rate=100r/s;

log_format fedsynth '$time_iso8601 $remote_addr $status "$request_method $uri" $request_length $bytes_sent '
                    '$request_time "$ssl_client_s_dn"';

upstream fedsynth_flower {{
    server 127.0.0.1:{inner_port};
    keepalive 16;
}}

server {{
    listen {port} ssl;
    server_name {host};
    access_log /var/log/nginx/fedsynth.log fedsynth;
    server_tokens off;

    ssl_certificate {at}/certificates/server.pem;
    ssl_certificate_key {at}/certificates/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;

    # A certificate of the client besides Flower's signatures. Flower's nodes show none: each hospital then needs a
    # program of its own on the way out that does (stunnel, its web proxy).
    # ssl_client_certificate {at}/certificates/clients.pem;
    # ssl_verify_client on;

    # Silence and slowness. nginx counts a connection once its request's head is whole; how many may stand before that
    # is for worker_connections and the firewall, which should let the hospitals' addresses in and nobody else.
    client_header_timeout 15s;
    client_body_timeout 30s;
    send_timeout 60s;
    keepalive_timeout 120s;
    reset_timedout_connection on;
    limit_conn fedsynth_connections 64;
    limit_req zone=fedsynth_requests burst=2000 nodelay;
    limit_conn_status 429;
    limit_req_status 429;

    client_header_buffer_size 4k;
    large_client_header_buffers 4 8k;
    client_max_body_size {largest};
    ignore_invalid_headers on;  # names with underscores and the like are dropped: Flower sends none
    merge_slashes off;

    location / {{
        if ($fedsynth_passes = 0) {{
            return 403;
        }}
        proxy_pass https://fedsynth_flower;
        proxy_http_version 1.1;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {at}/certificates/authority.pem;
        proxy_ssl_name localhost;
        proxy_set_header Host 127.0.0.1;
        proxy_set_header Connection "";
        # what a client says of itself is not believed
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-Host "";
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header Forwarded "";
        proxy_read_timeout 60s;
    }}
}}
"""

COMPOSE = """\
# The server in two containers: Flower on loopback, and nginx before it in the same network namespace.
# In server.toml say: proxy = "own". Put fedsynth's wheel beside this file, then: docker compose up --build
services:
  server:
    build: .
    command: ["fedsynth", "deploy", "serve", "{at}", "--run"]
    user: "10001"
    volumes:
      - .:{at}
    ports:
      - "{port}:{port}"
    restart: on-failure:5
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
  proxy:
    image: nginx:stable
    network_mode: "service:server"
    depends_on: [server]
    volumes:
      - ./nginx.conf:/etc/nginx/conf.d/default.conf:ro
      - ./certificates:{at}/certificates:ro
    restart: unless-stopped
"""

DOCKERFILE = """\
FROM python:3.11-slim
COPY *.whl /tmp/
RUN pip install --no-cache-dir /tmp/*.whl && rm /tmp/*.whl && useradd --uid 10001 --create-home fedsynth
ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
USER 10001
"""

DOCKERIGNORE = """\
# keys, certificates and runs never enter an image
*
!*.whl
"""


def nginx_files(*, host: str, port: int, inner_port: int, at: str) -> dict[str, str]:
    """All of them by name, for a server's folder that lies at `at`."""
    nginx = NGINX.format(
        host=host, port=port, inner_port=inner_port, at=at, posted="|".join(POSTED), largest=LARGEST_BODY
    )
    compose = COMPOSE.format(port=port, at=at)
    return {"nginx.conf": nginx, "compose.yaml": compose, "Dockerfile": DOCKERFILE, ".dockerignore": DOCKERIGNORE}
