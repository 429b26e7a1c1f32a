"""What resources of operators may say: the fields used here, after the projects' API references.

Their definitions come in no package of Python's, so unknown fields are refused instead.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
PORT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65535}
LABELS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT, "minProperties": 1}


def fields(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


_SELECTOR = fields({"matchLabels": LABELS})
_DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
_POOL = fields(
    {
        "selector": _SELECTOR,
        "targetPorts": list_of(fields({"number": PORT})),
        "endpointPickerRef": fields(
            {"name": TEXT},
            port=fields({"number": PORT}),
            failureMode=one_of("FailOpen", "FailClose"),
        ),
    }
)
_REWRITE = fields(
    {
        "poolRef": fields({"name": TEXT}, group=TEXT),
        "rules": list_of(
            fields(
                {
                    "matches": list_of(
                        fields({"model": fields({"value": TEXT}, type=one_of("Exact"))})
                    ),
                    "targets": list_of(
                        fields({"modelRewrite": TEXT, "weight": {"type": "integer", "minimum": 1}})
                    ),
                }
            )
        ),
    }
)
_MONITOR = fields(
    {
        "selector": _SELECTOR,
        "endpoints": list_of(
            fields(
                {"port": TEXT},
                path=TEXT,
                interval=_DURATION,
                authorization=fields({"credentials": fields({"name": TEXT, "key": TEXT})}),
                relabelings=list_of(
                    fields({"targetLabel": TEXT, "replacement": TEXT}, action=one_of("replace"))
                ),
            )
        ),
    }
)
_ROUTE = fields(
    {
        "parentRefs": list_of(fields({"name": TEXT})),
        "rules": list_of(
            fields(
                {"backendRefs": list_of(fields({"group": TEXT, "kind": TEXT, "name": TEXT}))},
                matches=list_of(
                    fields({"path": fields({"type": one_of("PathPrefix"), "value": TEXT})})
                ),
                timeouts=fields({"request": _DURATION}),
            )
        ),
    }
)

#: (apiVersion, kind) -> the schema of its spec.
SPECS = {
    ("inference.networking.k8s.io/v1", "InferencePool"): _POOL,
    ("inference.networking.x-k8s.io/v1alpha2", "InferenceModelRewrite"): _REWRITE,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _MONITOR,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _ROUTE,
}
