"""Any diffusion model that an attack may be tried on: resolving, loading, attention, drawing with it, and the Probe."""
