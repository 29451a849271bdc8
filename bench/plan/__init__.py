"""Cells to artifacts to jobs, each once."""
