"""The commands for adapter files, convert and inspect: they need a base and no server.

Loaded by entry point when they are called; torch and transformers are imported inside, so that
`--help` answers at once.
"""

import json as jsonlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from server.base.loading import Base

SourceArgument = Annotated[Path, typer.Argument(help="Folder with the adapter's two files.")]
BaseOption = Annotated[str, typer.Option(help="Folder, GGUF file or hub id of the base.")]
DtypeOption = Annotated[str, typer.Option(help="Of the base: float32, bfloat16 or float16.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


def convert(  # noqa: PLR0913 (the options of a command)
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="Folder to write; new unless --force.")],
    base: BaseOption,
    to: Annotated[
        str | None, typer.Option(help="Project onto fourierft, loca or waveletft.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="With --to: coefficients a layer.")] = None,
    scale: Annotated[float | None, typer.Option(help="With --to: the method's scale.")] = None,
    wavelet: Annotated[str | None, typer.Option(help="With --to waveletft: db1, sym4 …")] = None,
    num_levels: Annotated[int | None, typer.Option(help="With --to waveletft.")] = None,
    seed: Annotated[int | None, typer.Option(help="With --to: chooses the positions.")] = None,
    seeds: Annotated[int, typer.Option(help="With --to: try so many seeds, keep the best.")] = 1,
    entry_seed: Annotated[
        int | None, typer.Option(help="Of a checkpoint of the FourierFT authors' own code.")
    ] = None,
    plain: Annotated[
        bool, typer.Option(help="Without our metadata, as PEFT itself writes.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace the adapter in OUT.")] = False,
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Write SOURCE for the base B to OUT: our file, PEFT's, or projected onto another method."""
    from server.tools.adapter_folder import adapter_folder
    from server.tools.convert import Request
    from server.tools.convert import convert as run
    from server.tools.report import conversion_values, print_conversion

    options: dict[str, Any] = {"n": n, "scale": scale, "seed": seed}
    options |= {"wavelet": wavelet, "num_levels": num_levels}
    request = Request(to, options, seeds, entry_seed, plain, force)
    with _one_line_errors(as_json):
        folder = adapter_folder(source)
        loaded = _loaded(base, dtype)
        with _progress("projecting") as on_layer:
            done = run(folder, out, loaded, request, on_layer)
    if as_json:
        typer.echo(jsonlib.dumps(conversion_values(done, out)))
    else:
        print_conversion(done, out)


def inspect(
    source: SourceArgument,
    base: Annotated[
        str | None, typer.Option(help="Folder, GGUF file or hub id; without it, the file alone.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the updates to this .png, .pdf or .svg.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Only layers like this, such as '*.0.*q_proj'.")
    ] = None,
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Show what an adapter holds and, with its base, its update of each layer."""
    from server.tools.adapter_folder import BadFolder, adapter_folder
    from server.tools.inspect import Inspector, inspect_file
    from server.tools.plot import MAX_PLOTTED, check_plot, plot_deltas
    from server.tools.report import inspection_values, print_inspection

    with _one_line_errors(as_json):
        folder = adapter_folder(source)
        if base is None:
            if plot is not None:
                raise BadFolder("--plot needs --base: the file alone does not say what it changes")
            facts = inspect_file(folder, layers)
        else:
            if plot is not None:
                check_plot(plot)
            inspector = Inspector.of(folder, _loaded(base, dtype))
            paths = inspector.layers_like(layers)
            facts = inspector.inspect(paths)
            if plot is not None:
                shown = {path: inspector.delta(path) for path in paths[:MAX_PLOTTED]}
                plot_deltas(shown, plot, with_cosines=facts.method == "loca")
    if as_json:
        typer.echo(jsonlib.dumps(inspection_values(facts)))
    else:
        print_inspection(facts)


def _loaded(base: str, dtype: str) -> "Base":
    """Load the base on the CPU."""
    from adapters_core.gguf.conversion import base_name_of, local_base
    from adapters_core.starting import check_base
    from server.base.loading import load_base
    from server.settings import read_settings_of_machine
    from server.tools.adapter_folder import BadFolder

    if dtype not in ("float32", "bfloat16", "float16"):
        raise BadFolder(f"--dtype {dtype[:80]} is not float32, bfloat16 or float16")
    check_base(base)
    data = read_settings_of_machine(base=base).data
    source = local_base(base, data, lambda line: typer.echo(line, err=True))
    return load_base(source, base_name_of(base), "cpu", dtype)


@contextmanager
def _one_line_errors(as_json: bool) -> Iterator[None]:
    """End the program with one line or document and exit code 1 where input cannot be used."""
    from adapters_core.errors import AdapterError
    from adapters_core.starting import CannotStart
    from server.base.load_errors import BaseNotLoadable
    from server.process.command_errors import end_with_error
    from server.tools.adapter_folder import BadFolder

    try:
        yield
    except AdapterError as error:
        end_with_error(str(error), 1, as_json=as_json, code=error.code)
    except (CannotStart, BaseNotLoadable) as error:
        end_with_error(str(error), 1, as_json=as_json, code="base_not_loadable")
    except (BadFolder, OSError) as error:
        end_with_error(str(error), 1, as_json=as_json, code="invalid_argument")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows each finished layer's path; only on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(what) as status:
        yield lambda path: status.update(f"{what}: {path} done")
