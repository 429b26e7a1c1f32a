"""The application's own commands of the `overtone` program: serve, demo, doctor.

Loaded by entry point when they are called; torch and transformers are imported inside, so that
`--help` answers at once.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.demo_commands import DemoBase
from server.cli.serve_flags import with_flags

if TYPE_CHECKING:
    import socket

    from server.settings import Settings

BaseOption = Annotated[
    str | None, typer.Option(help="Folder, GGUF file or hub id of the base (or OVERTONE_BASE).")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on.")]
RegistryOption = Annotated[
    str | None, typer.Option(help="embedded, or redis://HOST:PORT (or OVERTONE_REGISTRY).")
]
PasswordFileOption = Annotated[
    str | None, typer.Option(help="File whose first line is the registry's password.")
]
DataOption = Annotated[
    str | None, typer.Option(help="Folder of the embedded registry and blobs (or OVERTONE_DATA).")
]
StoreOption = Annotated[
    str | None,
    typer.Option(help="Folder of the blobs, if elsewhere, or s3://… (or OVERTONE_STORE)."),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda … (or OVERTONE_DEVICE).")]
ModeOption = Annotated[str | None, typer.Option(help="auto, factored or merged.")]


@with_flags
def serve(
    check: Annotated[bool, typer.Option(help="Print the effective settings and stop.")] = False,
    **flags: str | bool | None,
) -> None:
    """Serve a base and its adapters until Ctrl-C. Every flag is also OVERTONE_<NAME>."""
    from adapters_core.starting import uncollected_imports
    from server.settings import read_settings

    with _one_line_ends():
        _warn_of_password(flags.get("registry"))
        settings = read_settings(**flags)
        if check:
            typer.echo(settings.model_dump_json(indent=2))
            return
        settings, listeners = _ready_to_load(settings)
        with uncollected_imports():
            from server.process.launch import launch

        _exit_with(launch(settings, listeners=listeners))


def demo(
    base: Annotated[
        DemoBase,
        typer.Option(help="tiny is shipped; smollm2, a real model, is downloaded once: 93 MB."),
    ] = "tiny",
    host: HostOption = None,
    port: PortOption = None,
    data: DataOption = None,
    mode: ModeOption = None,
) -> None:
    """Serve a base with adapters that were trained on it, and print what to try."""
    from server.cli.demo import demo_settings, fetch_base, run_demo

    with _one_line_ends():
        settings = demo_settings(host=host, port=port, data=data, mode=mode, base=base)
        settings, listeners = _ready_to_load(settings, fetch_base)
        _exit_with(run_demo(settings, listeners))


def doctor(  # noqa: PLR0913 (the options of a command)
    base: BaseOption = None,
    registry: RegistryOption = None,
    registry_password_file: PasswordFileOption = None,
    data: DataOption = None,
    store: StoreOption = None,
    device: DeviceOption = None,
    json: Annotated[bool, typer.Option(help="One JSON document instead of a table.")] = False,
) -> None:
    """Check whether this machine is fit to serve, and say what to do where it is not.

    It checks what `overtone serve` would use: the same flags, the same OVERTONE_… variables.
    """
    from server.processor.search import prepare
    from server.settings import read_settings_of_machine

    with _one_line_ends("stopped", as_json=json):
        _warn_of_password(registry)
        settings = read_settings_of_machine(
            base=base,
            registry=registry,
            registry_password_file=registry_password_file,
            data=data,
            store=store,
            device=device,
        )
        settings = _with_base_that_can_be(settings)
        prepare(settings)
        from server.cli.doctor import examine, print_findings

        findings = examine(settings)
        print_findings(findings, as_json=json)
        _exit_with(0 if all(finding.is_good for finding in findings) else 1)


def _ready_to_load(
    settings: "Settings", fetch: "Callable[[Settings], None] | None" = None
) -> "tuple[Settings, list[socket.socket]]":
    """Check what can be checked before torch is imported, and convert a base that needs it.

    Afterwards the setting of the matrix library is in the environment.

    Args:
        settings: to serve with.
        fetch: brings the base, once all else is found to be right; without it, it must be there.

    Returns:
        the settings with the base to load, and the listening sockets.

    Raises:
        CannotStart: this machine cannot serve what is set.
    """
    from adapters_core.starting import check_base, check_device, check_folder
    from registry.connect import check_answers, check_store, check_url
    from server.process.exposure import check_exposure
    from server.process.listening import open_listeners
    from server.processor.search import prepare
    from server.telemetry.audit import close_audit_log, open_audit_log
    from server.telemetry.process_log import configure_logging
    from server.telemetry.traces import check_traces

    check_exposure(settings)
    check_url(settings.registry_url)
    if fetch is None:
        check_base(settings.base)
    check_device(settings.device)
    check_traces(settings.traces)
    check_folder("data", settings.data)
    check_store(settings.store)
    close_audit_log(open_audit_log(settings.audit_log))  # `launch` opens it for good
    listeners = open_listeners(settings)
    configure_logging(settings.log_format)
    check_answers(settings.registry_url, logging.getLogger("overtone").warning)
    if fetch is not None:
        fetch(settings)
    settings = _with_local_base(settings, logging.getLogger("overtone").info)
    prepare(settings)
    return settings, listeners


def _with_local_base(settings: "Settings", say: Callable[[str], object]) -> "Settings":
    """Return the settings with a base that can be loaded: a GGUF file becomes a folder.

    Raises:
        CannotStart: it cannot.
    """
    from adapters_core.gguf.conversion import base_name_of, local_base

    name = settings.base_name or base_name_of(settings.base)
    base = local_base(settings.base, settings.data, say)
    return settings.model_copy(update={"base": base, "base_name": name})


def _with_base_that_can_be(settings: "Settings") -> "Settings":
    """Return the settings with a local base, or as they are if it cannot be: a check tells why."""
    from adapters_core.starting import CannotStart

    if not settings.base:
        return settings
    try:
        return _with_local_base(settings, lambda line: typer.echo(line, err=True))
    except CannotStart:
        return settings


@contextmanager
def _one_line_ends(
    words: str = "stopped while starting; nothing was served", *, as_json: bool = False
) -> Iterator[None]:
    """End the program with one line of error output.

    Exit codes: 2 for a setting, 1 for this machine, 130 and 143 for signals.
    """
    from adapters_core.starting import CannotStart, ended_at_once
    from registry.errors import RegistryError
    from server.process.command_errors import end_with_error
    from server.settings import BadSetting

    try:
        with ended_at_once(words):
            yield
    except BadSetting as error:
        end_with_error(str(error), 2, as_json=as_json, code="bad_setting")
    except (CannotStart, RegistryError) as error:
        end_with_error(str(error), 1, as_json=as_json, code="cannot_start")
    except KeyboardInterrupt as error:  # after all accepted requests were answered
        raise typer.Exit(130) from error


def _warn_of_password(url: object) -> None:
    """Warn of a password in a flag."""
    from registry.redis.address import FLAG_WARNING, has_password

    if isinstance(url, str) and has_password(url):
        typer.secho(FLAG_WARNING, err=True, fg=typer.colors.YELLOW)


def _exit_with(code: int) -> None:
    if code:
        raise typer.Exit(code)
