"""How the app is served: the flags of the Procfile, for `receiver serve` and the sandbox."""

APP = "receiver.app:create_app"

FLAGS = (
    "--factory",
    "--no-access-log",  # the app logs its own events; a query may contain what no log should
    "--no-server-header",
    "--no-proxy-headers",  # nothing here needs the client's address
    "--http",
    "receiver.web.http_protocol:ImpatientHttp",  # a request's head has a limit in time and size
    "--ws",
    "none",  # there are none; a request for one would leave the protocol above, and its limits
    "--limit-concurrency",
    "1000",
    "--timeout-graceful-shutdown",  # for open requests; the call in flight ends after them
    "20",
)
