"""The target model: loading a base, fine-tuning it, drawing with it, and the few calls an attack may make on it."""
