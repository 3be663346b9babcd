"""How commands show their help and refuse wrong usage: plain text, and one line."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from metaportrait_cli.cli.console import OPTION_NAMES, tell
from metaportrait_cli.cli.defaults import PREFIX, default_map, readable, whence
from metaportrait_cli.cli.options import BASIC, MACHINE, PANELS
from metaportrait_cli.errors import INTERRUPTED_EXIT_CODE, UsageError

HELP = ("-h", "--help")
HELP_OPTIONS = {"help_option_names": [*HELP]}


class Command(TyperCommand):
    """A command whose help comes in panels with examples, and whose errors name its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses what is empty, as a variable is that was never set: as a path it would be the
        working folder."""
        for before, given in zip(["", *args], args, strict=False):
            option, _, value = given.partition("=")
            if not given or (given.startswith("--") and "=" in given and not value):
                where = option or (before if before.startswith("-") else "an argument")
                raise UsageError(f"{where} is empty")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; while it does, messages that name its fields show its options."""
        names = {param.name: max(param.opts, key=len) for param in self.params}
        names |= {
            param.name: param.display_name_raw
            for param in self.params
            if isinstance(param, TyperArgument)
        }
        before = OPTION_NAMES.set(names)
        try:
            return super().invoke(ctx)
        finally:
            OPTION_NAMES.reset(before)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the command's name: arguments as their metavar says."""
        return [
            "[OPTIONS]",
            *(param.display_name_raw for param in self.params if isinstance(param, TyperArgument)),
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options by panel."""
        panels: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for param in self.get_params(ctx):
            if isinstance(param, TyperOption):
                param.show_envvar = False  # each has one, by one rule: see defaults.py
            record = param.get_help_record(ctx)
            if record is None:
                continue
            usual = MACHINE if param.name == "help" else BASIC
            if isinstance(param, TyperArgument):  # without its Python type
                record = (param.display_name_raw, record[1])
            panels[getattr(param, "rich_help_panel", None) or usual].append(record)
        for panel in sorted(panels, key=PANELS.index):
            with formatter.section(panel):
                formatter.write_dl(panels[panel])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, one a line, unwrapped: to be copied."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.epilog.splitlines()))


@contextmanager
def _telling_interrupts() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        tell("error: interrupted")
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None


class Group(TyperGroup):
    """Commands under one name; wrong usage is one line on stderr."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Commands with all of their first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl(
                (name, command.get_short_help_str(limit=1000))
                for name, command in self.commands.items()
            )

    def make_context(self, *given: Any, **extra: Any) -> Any:
        """What is typed, understood; an interrupt is one line here, too."""
        with _telling_interrupts():
            return super().make_context(*given, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; an interrupt before it has begun is one line, too."""
        with _telling_interrupts():
            return super().invoke(ctx)

    def main(self, *given: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Runs a command and exits with its code."""
        if not standalone_mode:
            return super().main(*given, standalone_mode=False, **extra)
        for param in self.params:
            if isinstance(param, TyperOption):  # `--version` and completion are to be typed
                param.allow_from_autoenv = False
        args: Sequence[str] | None = given[0] if given else extra.get("args")
        typed = sys.argv[1:] if args is None else [*args]
        try:
            # Who looks for help gets it, whatever is wrong with the defaults.
            helped = typed[:1] == ["doctor"] or {*HELP, "--version"} & {*typed}
            defaults = {} if helped and not readable(self) else default_map(self)
            code = super().main(
                *given,
                standalone_mode=False,
                default_map=defaults,
                auto_envvar_prefix=PREFIX,
                **extra,
            )
        except UsageError as error:
            tell(f"error: {error}")
            code = error.exit_code
        except typer.TyperException as error:
            message, context = error.format_message(), getattr(error, "ctx", None)
            if type(error).__name__ == "NoArgsIsHelpError":
                tell(message)
            else:
                more = f"; see {context.command_path} --help" if context else ""
                more = whence(error) + more
                tell(f"error: {' '.join(message.split()).removesuffix('.')}{more}")
            code = error.exit_code
        except typer.Abort:
            code = INTERRUPTED_EXIT_CODE
        sys.exit(code if isinstance(code, int) else 0)


def group(name: str, about: str, *, epilog: str = "") -> typer.Typer:
    """A room for commands; run without any, it shows its help."""
    return typer.Typer(
        name=name,
        help=about,
        epilog=epilog,
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP_OPTIONS,
    )


def add(app: typer.Typer, name: str, command: Callable[..., None], *, examples: str) -> None:
    """Puts a command into a group; `examples` are command lines, one a line."""
    app.command(name, cls=Command, epilog=examples, context_settings=HELP_OPTIONS)(command)
