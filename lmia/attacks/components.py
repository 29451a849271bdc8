"""An attack inside another attack's spec: its name and its own settings, checked as if it stood alone."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from lmia.attacks import ATTACKS, Attack
from lmia.specs import Spec


class Component(Spec):
    """An attack by name, with its own spec. Settings equal to the defaults are dropped: equal requests are equal."""

    attack: str = Field(description="name of the attack")
    settings: dict[str, Any] = Field({}, description="the attack's own spec")

    @field_validator("attack")
    @classmethod
    def _known(cls, name: str) -> str:
        ATTACKS.get(name)
        return name

    @field_validator("settings")
    @classmethod
    def _valid(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "attack" not in info.data:  # its own error is reported
            return settings
        return ATTACKS.get(info.data["attack"]).Spec.model_validate(settings).identity()

    def unwrap(self) -> tuple[type[Attack], Any]:
        """The attack and its spec."""
        attack = ATTACKS.get(self.attack)
        return attack, attack.Spec.model_validate(self.settings)
