"""The command `flussd`: start a cluster on this machine.

Must stay quick to import: `--help` loads nothing of the server, and the server no pyarrow, numpy or
rich. Whatever the user did wrong is one line on standard error and exit status 1, nothing damaged; our
own bug is a report and exit status 70.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from flussd import __version__

EXIT_USER: Final = 1
EXIT_INTERRUPTED: Final = 130  # Ctrl-C before the server was there to stop in order

DEFAULT_PORT: Final = 9123

EXAMPLES: Final = """
\b
Examples:
  flussd local                          a cluster at 127.0.0.1:9123; its data goes away with it
  flussd local --data-dir data          keeps its data in ./data
  flussd local --port 0 --tablets 3     three tablet servers, on any free ports
  flussd local -D log.segment.file-size=64mb -D log.durability=group_fsync
  flussd local --metrics-port 9249 --log-format json --log-level info
"""


class Commands(click.Group):
    """A group that says which command was probably meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or name the nearest one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from flussd.runtime_real.config import suggestion

            near = suggestion(args[0], self.list_commands(ctx))
            raise click.UsageError(f"no such command: {args[0]}{near}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, no_args_is_help=False, invoke_without_command=True, epilog=EXAMPLES)
@click.version_option(__version__, prog_name="flussd", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run a streaming store that speaks the protocol of Apache Fluss."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command(epilog=EXAMPLES)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where to keep the data; created if missing. Default: a temporary directory that goes away.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port of the coordinator; the tablet servers take the ports after it. 0: any free ones.",
)
@click.option(
    "--tablets",
    type=click.IntRange(1, 64),
    help="Number of tablet servers. Default: as many as the data directory has, or 1.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--advertised-host",
    metavar="NAME",
    help="What clients are told to connect to, where that is not --host: for containers, and for 0.0.0.0, "
    "for which it is else the machine's name.",
)
@click.option(
    "-D", "settings", multiple=True, metavar="KEY=VALUE", help="Set an option; see the list below."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve /metrics, /health/live and /health/ready on this port. 0: any free one. Default: do not.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the log on standard error: a line an event, for people or for machines.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="What is logged: this, and all that is worse.",
)
def local(
    data_dir: Path | None,
    port: int,
    tablets: int | None,
    host: str,
    advertised_host: str | None,
    settings: tuple[str, ...],
    metrics_port: int | None,
    log_format: str,
    log_level: str,
) -> None:
    """Start a cluster in one process: a coordinator and one or more tablet servers.

    It prints one line that begins with "flussd ready" once an append would succeed. Ctrl-C and SIGTERM
    stop it in order. A killed process loses nothing that it acknowledged.
    """
    from flussd.cli import serve

    logging = (log_format, log_level)
    wanted = serve.Wanted(data_dir, port, tablets, host, settings, advertised_host, metrics_port, *logging)
    raise SystemExit(serve.local(wanted))


def _settings_help() -> str:
    from flussd.runtime_real.config import KEYS

    width = max(map(len, KEYS))
    lines = [f"  {key:<{width}}  {option.help}" for key, option in KEYS.items()]
    return "\n\b\nOptions for -D:\n" + "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return or raise its exit status."""
    if not __debug__:
        return _fail("python -O takes out the assertions that guard your data; start without it")
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--help" in arguments:
        local.epilog = EXAMPLES + _settings_help()
    try:
        cli.main(arguments, prog_name="flussd", standalone_mode=False)
    except click.ClickException as error:
        return _fail(_one_line(error))
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # of `flussd --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _one_line(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        text = f"no such option: {error.option_name}; did you mean {error.possibilities[0]}?"
    if isinstance(error, click.UsageError) and "did you mean" not in text:
        command = error.ctx.command_path if error.ctx is not None else "flussd"
        text = f"{text.rstrip('.')}; see {command} --help"
    return " ".join(text.split())


def _fail(text: str) -> int:
    print(f"flussd: {text}", file=sys.stderr)
    return EXIT_USER


if __name__ == "__main__":
    raise SystemExit(main())
