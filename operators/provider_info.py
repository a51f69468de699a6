"""What Airflow is told about this provider: its operators, hook, trigger and connection form."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Provider metadata, as `airflow/provider_info.schema.json` describes it.

    Airflow calls this while it is being imported itself, so nothing here imports Airflow.
    """
    return {
        "package-name": "paliflow",
        "name": "Paliflow",
        "description": "Batch vision: PaliGemma on Ray, fine-tuned on a schedule.",
        "integrations": [{"integration-name": "Ray", "external-doc-url": "https://docs.ray.io/"}],
        "operators": [
            {
                "integration-name": "Ray",
                "python-modules": [
                    "paliflow.operators.annotate",
                    "paliflow.operators.calibrate",
                    "paliflow.operators.evaluate",
                    "paliflow.operators.extract_frames",
                    "paliflow.operators.filter",
                    "paliflow.operators.finetune",
                    "paliflow.operators.promote",
                    "paliflow.operators.ray_cluster",
                    "paliflow.operators.release",
                ],
            }
        ],
        "hooks": [
            {
                "integration-name": "Ray",
                "python-modules": ["paliflow.operators.hook", "paliflow.operators.kubernetes"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Ray",
                "python-modules": [
                    "paliflow.operators.trigger",
                    "paliflow.operators.ray_cluster_trigger",
                    "paliflow.operators.rayjob_trigger",
                ],
            }
        ],
        "extra-links": [
            "paliflow.operators.links.RayJobLink",
            "paliflow.operators.links.OutputLink",
        ],
        "connection-types": [
            {
                "connection-type": "ray",
                "hook-name": "Ray",
                "hook-class-name": "paliflow.operators.hook.RayJobHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "extra"],
                    "relabeling": {"password": "Token", "schema": "Scheme"},
                    "placeholders": {
                        "host": "raycluster-head-svc, or https://ray.example.com/prefix",
                        "port": "8265",
                        "schema": "http",
                        "password": "sent as a Bearer token; empty if the cluster wants none",
                    },
                },
                "conn-fields": {
                    "headers": {
                        "label": "Headers",
                        "description": "Sent with every request, e.g. for a proxy: a JSON object.",
                        "schema": {"type": ["object", "null"]},
                    },
                    "verify": {
                        "label": "Verify TLS",
                        "description": "true, false, or the path of a certificate bundle.",
                        "schema": {"type": ["string", "null"], "default": "true"},
                    },
                    "allow_insecure": {
                        "label": "Allow insecure",
                        "description": "true: send token and headers over plain http to another "
                        "host. Only where the network is trusted.",
                        "schema": {"type": ["string", "null"], "default": "false"},
                    },
                },
            }
        ],
    }
