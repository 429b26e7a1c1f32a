"""A request to run a batch, checked at the door."""

from typing import Annotated, Literal

from pydantic import Field

from registry.batches.requests import Endpoint
from server.api.job_schemas import Metadata
from server.api.request_body import OpenAIBody


class BatchCreation(OpenAIBody):
    """A batch of requests over an uploaded file.

    Args:
        input_file_id: an uploaded file's id, of purpose `batch`.
        endpoint: that every line of the file names.
        completion_window: after which the batch expires; one length is supported.
        metadata: kept with the batch.
    """

    example = {
        "input_file_id": "file-0123456789abcdef01234567",
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }

    input_file_id: Annotated[str, Field(min_length=1, max_length=128)]
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata = Field(default_factory=dict)
