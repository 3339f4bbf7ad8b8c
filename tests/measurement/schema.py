"""``python -m tests.measurement.schema`` writes the published schema anew."""

import json
from pathlib import Path

from sekron_edge.measurement import MeasurementReport

if __name__ == "__main__":
    path = Path(__file__).parents[2] / "docs" / "schemas" / "measurements.json"
    schema = MeasurementReport.model_json_schema(mode="serialization")
    path.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
