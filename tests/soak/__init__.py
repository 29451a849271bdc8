"""Kills at random times over a whole campaign."""
