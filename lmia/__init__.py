"""The science of lmia: data, target models, attacks and metrics. Never imports ray, mlflow or bench."""

__version__ = "0.1.0"
