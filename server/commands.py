"""The application's own commands of the `overtone` program: serve, demo, doctor.

Loaded by entry point when they are called; torch and transformers are imported inside, so that
`--help` answers at once.
"""

from typing import Annotated, NoReturn

import typer

from server.serve_flags import with_flags

BaseOption = Annotated[
    str | None, typer.Option(help="Folder or hub id of the base (or OVERTONE_BASE).")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on.")]
RegistryOption = Annotated[str | None, typer.Option(help="embedded, or redis://HOST:PORT.")]
DataOption = Annotated[str | None, typer.Option(help="Folder of the embedded registry and blobs.")]
ModeOption = Annotated[str | None, typer.Option(help="auto, factored or merged.")]


@with_flags
def serve(
    check: Annotated[bool, typer.Option(help="Print the effective settings and stop.")] = False,
    **flags: str | bool | None,
) -> None:
    """Serve a base and its adapters until Ctrl-C. Every flag is also OVERTONE_<NAME>."""
    from server.settings import BadSetting, read_settings

    try:
        settings = read_settings(**flags)
    except BadSetting as error:
        _stop(str(error), 2)
    if check:
        typer.echo(settings.model_dump_json(indent=2))
        return
    from server.launch import launch

    _exit_with(launch(settings))


def demo(
    host: HostOption = None,
    port: PortOption = None,
    data: DataOption = None,
    mode: ModeOption = None,
) -> None:
    """Serve the shipped demo base with its adapters, and print what to try."""
    from server.demo import run_demo
    from server.settings import BadSetting

    try:
        code = run_demo(host=host, port=port, data=data, mode=mode)
    except BadSetting as error:
        _stop(str(error), 2)
    _exit_with(code)


def doctor(
    base: BaseOption = None,
    registry: RegistryOption = None,
    data: DataOption = None,
    json: Annotated[bool, typer.Option(help="One JSON document instead of a table.")] = False,
) -> None:
    """Say whether this machine is fit to serve, and what to do where it is not."""
    from server.doctor import examine, print_findings

    findings = examine(base=base, registry=registry, data=data)
    print_findings(findings, as_json=json)
    _exit_with(0 if all(finding.is_good for finding in findings) else 1)


def _stop(message: str, code: int) -> NoReturn:
    typer.secho(message, err=True, fg=typer.colors.RED)
    raise typer.Exit(code)


def _exit_with(code: int) -> None:
    if code:
        raise typer.Exit(code)
