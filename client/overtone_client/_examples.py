"""An example of every command, shown at the end of its help; tests read each as a shell would."""

import typer

EXAMPLES = {
    "upload": "overtone upload my-adapter/ --name critic --alias prod",
    "list": "overtone list --prefix crit",
    "show": "overtone show critic@2",
    "layers": "overtone layers critic@2",
    "delete": "overtone delete critic --version 2 --yes",
    "alias": "overtone alias critic prod 2 --if-version 1",
    "rollback": "overtone rollback critic",
    "share": "overtone share critic --with bob",
    "warm": "overtone warm critic",
    "pin": "overtone pin critic",
    "unpin": "overtone unpin critic",
    "download": "overtone download critic@2 --output critic.safetensors",
    "models": "overtone models",
    "chat": 'overtone chat critic --message "Well?"',
    "complete": 'overtone complete critic "Once upon a time" --max-tokens 32',
    "compare": 'overtone compare critic critic@prod --prompt "Once upon a time"',
    "classify": 'overtone classify reviews "Never again." "Well done!"',
    "embed": 'overtone embed notes "A sentence."',
    "rerank": 'overtone rerank judge "What is rain?" "Drops." "A plain in Spain."',
    "score": 'overtone score judge "What is rain?" "Drops."',
    "tokenize": 'overtone tokenize "Once upon a time"',
    "detokenize": "overtone detokenize 12 7 40",
    "train": "overtone train --data lines.jsonl --name poet --method loca --follow",
    "jobs": "overtone jobs --limit 5",
    "job": "overtone job ftjob-0f3a --follow",
    "reproduce": "overtone reproduce poet@1",
    "evaluate": "overtone evaluate poet --data lines.jsonl",
    "workers": "overtone workers",
    "status": "overtone status",
    "top": "overtone top --once",
    "files upload": "overtone files upload lines.jsonl",
    "files list": "overtone files list --limit 5",
    "files show": "overtone files show file-0f3a",
    "files download": "overtone files download file-0f3a --output lines.jsonl",
    "files delete": "overtone files delete file-0f3a",
    "batch create": "overtone batch create lines.jsonl --follow",
    "batch list": "overtone batch list",
    "batch show": "overtone batch show batch_0f3a --follow",
    "batch cancel": "overtone batch cancel batch_0f3a",
    "batch results": "overtone batch results batch_0f3a --output answers.jsonl",
    "keys create": "overtone keys create --tenant alice --scopes infer --expires 30d",
    "keys list": "overtone keys list --tenant alice",
    "keys show": "overtone keys show 0f3a",
    "keys rotate": "overtone keys rotate 0f3a --grace 1d",
    "keys revoke": "overtone keys revoke 0f3a",
    "tenants limits": "overtone tenants limits alice --tokens-per-minute 100000",
    "tenants usage": "overtone tenants usage alice",
    "serve": "overtone serve --base my-base/ --port 8000",
    "worker": "overtone worker --base my-base/",
    "demo": "overtone demo --port 8000",
    "bench": "overtone bench serving --adapters 100 --clients 32",
    "convert": "overtone convert my-adapter/ out/ --base my-base/ --to loca",
    "inspect": "overtone inspect my-adapter/",
    "doctor": "overtone doctor --base my-base/",
    "backup": "overtone backup saved/ --data .overtone/",
    "restore": "overtone restore saved/ --data .overtone/",
    "gc": "overtone gc --dry-run",
    "store show": "overtone store show",
    "store adopt": "overtone store adopt --yes",
    "tenant list": "overtone tenant list",
    "tenant rename": "overtone tenant rename alice bob",
}
_ANYWHERE = "--url, --api-key and --json may also stand after the command."


def epilog(name: str, *, is_ours: bool = True) -> str | None:
    """The last lines of a command's help; nothing for one that another package adds.

    Args:
        name: of the command, with its group's.
        is_ours: it is one of this package, which takes the global options.
    """
    if name not in EXAMPLES:
        return None
    example = f"Example: {EXAMPLES[name]}"
    return f"{example}\n\n{_ANYWHERE}" if is_ours else example


def attach(group: typer.Typer, name: str, *, is_ours: bool = True) -> typer.Typer:
    """The group, whose commands show their examples."""
    for command in group.registered_commands:
        function = getattr(command.callback, "__name__", "")
        word = command.name or function.replace("_", "-")
        command.epilog = epilog(f"{name} {word}", is_ours=is_ours)
    return group
