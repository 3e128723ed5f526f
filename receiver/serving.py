"""How the app is served: the flags of the Procfile, for `receiver serve` and the sandbox."""

APP = "receiver.app:create_app"

FLAGS = (
    "--factory",
    "--no-access-log",  # the app logs its own events; a query may hold what no log should
    "--no-server-header",
    "--limit-concurrency",
    "1000",
    "--timeout-graceful-shutdown",  # for open requests; the call in flight ends after them
    "20",
)
