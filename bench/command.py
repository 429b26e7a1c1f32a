"""`overtone bench`: one sub-command for each program; imports nothing heavy before it is called."""

import sys
from importlib import import_module
from typing import NamedTuple

import typer

from overtone_client import InvalidArgument


class Program(NamedTuple):
    """A program: its module, below `bench`, and its line in the help."""

    module: str
    line: str


#: Name -> program.
PROGRAMS = {
    "serving": Program(
        "programs.serving", "A running server under traffic: first tokens, gaps, goodput, fairness."
    ),
    "engine": Program(
        "programs.engine", "A decode step with every row another adapter, and model.generate."
    ),
    "sampling": Program(
        "programs.sampling", "Decode steps of 32 rows that sample, against greedy ones."
    ),
    "peft": Program("programs.peft", "Beside PEFT: 32 requests with 32 adapters, and cold files."),
    "http": Program("programs.http", "What HTTP, uploads and residency add, on a real server."),
    "short": Program(
        "programs.short_answers",
        "Short answers over REST: 1, 32 and 1,000 adapters in the traffic.",
    ),
    "cliff": Program(
        "programs.cliff",
        "1 to 10,000 adapters in the traffic, even and Zipf: tokens/s, first tokens.",
    ),
    "endurance": Program(
        "programs.endurance", "A thousand streams at once, and memory over 200,000 requests."
    ),
    "start": Program(
        "programs.start", "A first and a second start, beside the imports and the weights alone."
    ),
    "scale": Program("programs.scale", "10 to 10,000 registered adapters, two servers in turns."),
    "simulate": Program(
        "programs.simulate",
        "Where requests are placed: 10,000 adapters on 100 replicas, simulated by measured costs.",
    ),
    "followers": Program(
        "programs.followers",
        "Ten servers' mirrors on one registry of 100,000 adapters: memory, time, news.",
    ),
    "ray": Program(
        "programs.ray_affinity",
        "Affinity on Ray Serve beside power of two choices: hit rate and first token.",
    ),
    "training": Program("programs.training", "A training step beside PEFT's: time and memory."),
    "training_text": Program(
        "studies.text", "MiniLM sorts Debian's packages: every method by its preset alone."
    ),
    "training_digits": Program(
        "studies.digits", "A ViT learns new digits: every method by its preset alone."
    ),
    "training_demo": Program(
        "studies.demo", "The demo's base learns two styles: every method by its preset alone."
    ),
    "training_real": Program(
        "studies.real", "A language model of your own learns two texts: every method by its preset."
    ),
    "training_toys": Program(
        "studies.toys",
        "Two toy problems of the papers: how much a few numbers in one layer can express.",
    ),
    "methods": Program("programs.methods", "Every method beside PEFT and LoRA, layer by layer."),
    "clora": Program("programs.clora", "CLoRA's parts, one by one."),
    "constraints": Program(
        "programs.constraints",
        "Constrained decoding: compiling, masks, and a step with 1, 8 and 32 constrained rows.",
    ),
    "flood": Program(
        "programs.flood", "One tenant floods the server: what another one waits for meanwhile."
    ),
    "stalls": Program(
        "programs.stalls",
        "Requests that could stop a server: how long anything else waits meanwhile.",
    ),
    "observing": Program(
        "programs.observing", "What scrapes of the metrics and traces cost a server under load."
    ),
    "bases": Program(
        "programs.bases", "FRoD's basis of a wide base, computed beside a server that serves."
    ),
    "beside": Program(
        "programs.interference",
        "A worker trains beside a server: latency and throughput of those who are served.",
    ),
    "handover": Program(
        "programs.train_to_serve", "From a job's last step to the first answer with what it made."
    ),
    "modes": Program(
        "programs.modes",
        "Factored, merged and auto side by side, over 1 to 32 adapters in one batch.",
    ),
    "numerics": Program("programs.numerics", "What bfloat16 costs in the answer, token by token."),
    "encoders": Program(
        "conformance.encoders",
        "Every classifier and embedder type of transformers: as PEFT has it, or refused.",
    ),
    "gpu": Program("programs.gpu", "Everything that needs a GPU."),
    "gpu_cost": Program(
        "programs.gpu_cost", "Launches, bytes and waits of a GPU at an 8B base's shape, counted."
    ),
    "architectures": Program(
        "conformance.architectures",
        "Every causal-LM type of transformers: as PEFT has it, or refused.",
    ),
    "table": Program("table.table", "All targets in one JSON and one table."),
}
#: Package that only some programs need -> how it is installed.
_EXTRAS = {"peft": "peft==0.21.2", "sklearn": "scikit-learn"}
_FORWARDED = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": list[str](),
}

bench = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run the product's own benchmarks. The last line of each one's output is one JSON object.",
)


def run(name: str, arguments: list[str]) -> None:
    """Run a program.

    Raises:
        InvalidArgument: it needs a package that is not installed, or an option is wrong.
        OvertoneError: there is no server, or it cannot be measured.
    """
    try:
        program = import_module(f"bench.{PROGRAMS[name].module}")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise InvalidArgument(
            f"`overtone bench {name}` needs {missing}: pip install {_EXTRAS[missing]}"
        ) from error
    before = sys.argv
    sys.argv = [f"overtone bench {name}", *arguments]  # where the programs look for their options
    try:
        program.main()
    finally:
        sys.argv = before


def _add(name: str, line: str) -> None:
    @bench.command(name, help=line, context_settings=_FORWARDED)
    def program(ctx: typer.Context) -> None:
        given = list(ctx.args)
        session = ctx.obj
        if name == "serving" and session is not None:  # the program's own options come first
            given = ["--url", session.url, *given]
            if session.api_key:
                given = ["--api-key", session.api_key, *given]
            if session.as_json:
                given = ["--json", *given]
        run(name, given)


for _name, _program in PROGRAMS.items():
    _add(_name, _program.line)
