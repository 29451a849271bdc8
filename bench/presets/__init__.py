"""Named benchmarks in YAML; one may extend another."""
