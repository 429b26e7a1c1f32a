"""What the server's process writes to its log, and how."""

import logging


def configure_logging() -> None:
    """Write what is worth knowing to standard error; safe to call twice."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx2", "httpcore2", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
