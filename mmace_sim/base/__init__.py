"""What all parts stand on: texts, signals, strict YAML, memory, the registry of quantities. Nothing computes here."""
