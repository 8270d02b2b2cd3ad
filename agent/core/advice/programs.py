"""The settings to look at in programs that are often found behind this: names as in each program's own manual.

nginx: ngx_http_core_module, ngx_http_proxy_module. haproxy: configuration.txt. Varnish: varnishd(1), parameters of 4 to
7. Tomcat: config/http.html. Envoy: HttpConnectionManager, Listener and Cluster of the v3 API.
"""

import re
from typing import NamedTuple


class Program(NamedTuple):
    """One program: the words that name it, what to set against either cause at what price, and how to see it now."""

    name: str
    words: re.Pattern[str]
    orphans: str
    memory: str
    price: str
    commands: tuple[str, ...]


_VARNISH = (
    "In Varnish: idle_send_timeout (60 s by default: a client that takes nothing), send_timeout (600 s: the whole "
    "answer), and timeout_idle (5 s: between requests)."
)
PROGRAMS = (
    Program(
        name="nginx",
        words=re.compile(r"nginx|openresty"),
        orphans="In nginx: reset_timedout_connection on (a client that times out during a response is reset and "
        "leaves no orphan; keep-alive connections close as usual), a shorter send_timeout (60 s by default) and "
        "keepalive_timeout, lingering_close and lingering_timeout, and sndbuf= of listen, which bounds what one "
        "connection can leave unsent.",
        memory="In nginx: sndbuf= and rcvbuf= of listen bound one connection, proxy_buffering on takes the answer out "
        "of the upstream's socket, send_timeout and keepalive_timeout end stalled and idle connections.",
        price="Clients that stall for longer than the timeout lose their download; a small sndbuf= slows clients "
        "that are far away.",
        commands=(
            "nginx -T 2>/dev/null | grep -nE 'reset_timed|lingering|(send|keepalive)_timeout|proxy_buf|(snd|rcv)buf'",
        ),
    ),
    Program(
        name="haproxy",
        words=re.compile(r"haproxy"),
        orphans="In haproxy: timeout client and timeout client-fin (how long a client that is half closed may stay), "
        "timeout server, timeout tunnel for upgraded connections, and tune.sndbuf.client, which bounds what one "
        "client can leave unsent. option nolinger leaves no orphans at all, but see the risk.",
        memory="In haproxy: tune.sndbuf.client and tune.rcvbuf.server bound one connection, timeout client, timeout "
        "server and timeout tunnel end stalled and idle connections.",
        price="Slow clients are cut off sooner. option nolinger resets connections: clients lose the end of an answer "
        "that they had not read yet.",
        commands=("grep -nE 'timeout +(client|server|tunnel)|tune\\.(snd|rcv)buf|nolinger' /etc/haproxy/haproxy.cfg",),
    ),
    Program(
        name="Varnish",
        words=re.compile(r"varnish|varnishd|cache-main"),
        orphans=_VARNISH,
        memory=_VARNISH,
        price="Downloads that take longer than send_timeout are cut off.",
        commands=("varnishadm param.show | grep -E 'send_timeout|timeout_idle'",),
    ),
    Program(
        name="Tomcat",
        words=re.compile(r"tomcat[0-9]*"),
        orphans="In Tomcat, at the Connector: connectionTimeout, keepAliveTimeout and maxKeepAliveRequests end idle "
        "connections, socket.txBufSize bounds what one connection can leave unsent.",
        memory="In Tomcat, at the Connector: socket.txBufSize and socket.rxBufSize bound one connection, "
        "connectionTimeout, keepAliveTimeout and maxKeepAliveRequests end idle ones.",
        price="A small socket.txBufSize makes large answers slow; short timeouts cut off slow clients.",
        commands=("grep -nE '(connection|keepAlive)Timeout|maxKeepAlive|BufSize' /etc/tomcat*/server.xml",),
    ),
    Program(
        name="Envoy",
        words=re.compile(r"envoy"),
        orphans="In Envoy: delayed_close_timeout (how long it waits for the client after the last byte), "
        "stream_idle_timeout and idle_timeout, and per_connection_buffer_limit_bytes of the listener.",
        memory="In Envoy: per_connection_buffer_limit_bytes of listener and cluster (its own buffers; when they are "
        "full it stops reading), stream_idle_timeout and idle_timeout.",
        price="Slow clients are cut off sooner; small buffers make it read in smaller steps.",
        commands=(
            "curl -s localhost:9901/config_dump | grep -nE '(delayed_close|idle)_timeout|buffer_limit'   # admin port",
        ),
    ),
)
# A helper that is called after the program has none of its settings.
_HELPERS = frozenset({"exporter", "agent", "reload", "logrotate", "amplify"})
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def find_program(unit: str | None, processes: str | None) -> Program | None:
    """Return which program it is: by a whole word of the unit's name, or the name of one of its processes.

    ``processes`` as core.sockets.holders writes them: "nginx (pid 12), nginx (pid 13)".
    """
    names = [text.partition(" (pid ")[0].lower() for text in (processes or "").split(", ")]
    words = _SEPARATORS.split((unit or "").lower().rpartition(".")[0])
    if _HELPERS.intersection(words):
        words = []
    return next((each for word in (*names, *words) for each in PROGRAMS if each.words.fullmatch(word)), None)
