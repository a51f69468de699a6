"""The output's columns, a contract: added to, never renamed."""

import pyarrow as pa

MASK = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
DETECTION = pa.struct(
    [
        ("label", pa.string()),
        ("y_min", pa.float32()),
        ("x_min", pa.float32()),
        ("y_max", pa.float32()),
        ("x_max", pa.float32()),
        ("score", pa.float32()),
        ("mask", MASK),
        ("track_id", pa.int32()),
        ("label_probability", pa.float32()),
        ("location_mass", pa.float32()),
        ("confidence", pa.float32()),
        ("accepted", pa.bool_()),
    ]
)
CHOICE = pa.struct([("label", pa.string()), ("probability", pa.float32())])
CLIP_FRAME = pa.struct([("frame_index", pa.int64()), ("timestamp_s", pa.float64())])
SCHEMA_VERSION = "1"
SAFETY = pa.list_(
    pa.struct(
        [
            ("filter", pa.string()),
            ("version", pa.string()),
            ("field", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
            ("action", pa.string()),
            ("reason", pa.string()),
        ]
    )
)
"""What filters said of a row: see `configs.safety.Verdict`."""

ANNOTATIONS = pa.schema(
    [
        ("source_uri", pa.string()),
        ("source_sha256", pa.string()),
        ("frame_index", pa.int64()),
        ("timestamp_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("task", pa.string()),
        ("prompt", pa.string()),
        ("text", pa.string()),
        ("detections", pa.list_(DETECTION)),
        ("logprob", pa.float32()),
        ("token_count", pa.int32()),
        ("finished", pa.bool_()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("metadata", pa.string()),
        ("id", pa.string()),
        ("image_thumbnail", pa.binary()),
        ("source_version", pa.string()),
        ("clip_frames", pa.list_(CLIP_FRAME)),
        ("frame_distance", pa.float32()),
        ("note", pa.string()),
        ("name", pa.string()),
        ("choices", pa.list_(CHOICE)),
        ("choices_mass", pa.float32()),
        ("mean_logprob", pa.float32()),
        ("min_logprob", pa.float32()),
        ("safety", SAFETY),
        ("confidence", pa.float32()),
        ("accepted", pa.bool_()),
    ],
    metadata={"paliflow.schema_version": SCHEMA_VERSION},
)
"""One row per (image, frame or clip; prompt); see `docs/output.md`."""

FRAMES = pa.schema(
    [
        ("image", pa.string()),
        ("source_uri", pa.string()),
        ("source_version", pa.string()),
        ("frame_index", pa.int64()),
        ("timestamp_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frame_distance", pa.float32()),
        ("pixel_aspect", pa.float32()),
        ("id", pa.string()),
        ("metadata", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("note", pa.string()),
    ],
    metadata={"paliflow.schema_version": SCHEMA_VERSION},
)
"""One row per frame that was extracted; see `docs/frames.md`."""

FILTERED = pa.schema(
    [
        ("image", pa.string()),
        ("id", pa.string()),
        ("metadata", pa.string()),
        ("texts", pa.list_(pa.struct([("column", pa.string()), ("text", pa.string())]))),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_sha256", pa.string()),
        ("source_version", pa.string()),
        ("pixels_sha256", pa.binary(32)),
        ("image_hash", pa.binary(32)),
        ("safety", SAFETY),
        ("status", pa.string()),
        ("error", pa.string()),
        ("copy", pa.string()),
    ],
    metadata={"paliflow.schema_version": SCHEMA_VERSION},
)
"""One row per input of a run of filters; see `docs/responsible_use.md`."""

AUDIT = pa.schema(
    [
        ("image", pa.string()),
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("source_sha256", pa.string()),
        ("kept", pa.bool_()),
        *SAFETY.value_type,
    ],
    metadata={"paliflow.schema_version": SCHEMA_VERSION},
)
"""`_safety.parquet`: one row for each verdict that removed, changed or flagged something, or that
could not be given."""

GATES = pa.schema(
    [
        ("judged", pa.timestamp("us", tz="UTC")),
        ("check", pa.string()),
        ("value", pa.float64()),
        ("limit", pa.float64()),
        ("least", pa.bool_()),
        ("passed", pa.bool_()),
        ("released", pa.timestamp("us", tz="UTC")),
        ("why", pa.string()),
    ],
    metadata={"paliflow.schema_version": SCHEMA_VERSION},
)
"""`_gates.parquet`: one row for each check of a run's gate. `released` and `why` are of a run that
somebody let through; see `docs/gates.md`."""

SCORE = pa.struct([("numerator", pa.float64()), ("denominator", pa.float64())])
"""What an example adds to a metric's figure, which is a ratio of sums."""

PREDICTIONS = pa.schema(
    [
        ("set", pa.string()),
        ("id", pa.string()),
        ("image", pa.string()),
        ("image_sha256", pa.string()),
        ("prefix", pa.string()),
        ("references", pa.list_(pa.string())),
        ("text", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("details", pa.string()),
    ]
)
"""One row per held-out example; a column of `SCORE` follows for each metric of the evaluation. See
`docs/promotion.md`."""

PLAN = pa.schema(
    [
        ("uri", pa.string()),
        ("archive", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("prompts", pa.list_(pa.string())),
        ("asks", pa.list_(pa.int32())),
        ("choices", pa.list_(pa.string())),
        ("id", pa.string()),
        ("metadata", pa.string()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("frames", pa.list_(pa.string())),
        ("roots", pa.list_(pa.string())),
        ("edit", pa.string()),
    ]
)
"""The inputs of a run in order: see `jobs.runs.plan.Item`."""

EXAMPLES = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("prefix", pa.string()),
        ("suffixes", pa.list_(pa.string())),
        ("size", pa.list_(pa.int32())),
        ("details", pa.string()),
        ("edit", pa.string()),
    ]
)
"""The labelled examples of a run in order: see `jobs.examples.example.Example`."""
