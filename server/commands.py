"""The application's own commands of the `overtone` program: serve, demo, doctor.

Loaded by entry point when they are called; torch and transformers are imported inside, so that
`--help` answers at once.
"""

from typing import Annotated, NoReturn

import typer

BaseOption = Annotated[
    str | None, typer.Option(help="Folder or hub id of the base (or OVERTONE_BASE).")
]
NameOption = Annotated[str | None, typer.Option(help="What requests call the base.")]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on.")]
RegistryOption = Annotated[str | None, typer.Option(help="embedded, or redis://HOST:PORT.")]
DataOption = Annotated[str | None, typer.Option(help="Folder of the embedded registry and blobs.")]
StoreOption = Annotated[str | None, typer.Option(help="Folder of the blobs, if not in --data.")]
ModeOption = Annotated[str | None, typer.Option(help="auto, factored or merged.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
DtypeOption = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]


def serve(
    base: BaseOption = None,
    base_name: NameOption = None,
    host: HostOption = None,
    port: PortOption = None,
    registry: RegistryOption = None,
    data: DataOption = None,
    store: StoreOption = None,
    mode: ModeOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    check: Annotated[bool, typer.Option(help="Print the effective settings and stop.")] = False,
) -> None:
    """Serve a base and its adapters until Ctrl-C. Every flag is also OVERTONE_<NAME>."""
    from server.settings import BadSetting, read_settings

    try:
        settings = read_settings(
            base=base,
            base_name=base_name,
            host=host,
            port=port,
            registry=registry,
            data=data,
            store=store,
            mode=mode,
            device=device,
            dtype=dtype,
        )
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
