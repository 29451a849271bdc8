"""Options that several commands of `lmia` have, declared once."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from cyclopts import Parameter

Store = Annotated[str, Parameter(env_var="LMIA_STORE", help="folder or s3://...")]
StoreUnused = Annotated[str, Parameter(show=False, help="taken by all commands; this one has no use for it")]
Preset = Annotated[str, Parameter(name="PRESET|FILE", help="a preset's name or a YAML file")]
Set = Annotated[
    tuple[str, ...], Parameter(name="--set", help="override a setting: A.B=C; may be repeated", show_default=False)
]
Address = Annotated[
    str | None, Parameter(help="Ray cluster to join (RAY_ADDRESS); none starts one on this machine", show_default=False)
]
RuntimeSettings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--runtime", help="how to run: KEY=VALUE (device, workers, ...); may be repeated", show_default=False
    ),
]
Retry = Annotated[bool, Parameter(help="try jobs again that were given up", show_default=False)]
TableFormat = Annotated[Literal["table", "json"], Parameter(help="how it is printed")]


def tell(line: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def settings_of(texts: Iterable[str], option: str, example: str) -> dict[str, Any]:
    """Nested plain values from A.B=VALUE texts; RequestError names the option."""
    from bench.config import override

    found: dict[str, Any] = {}
    for text in texts:
        override(found, text, example, option)
    return found


def runtime_of(texts: Iterable[str], address: str | None) -> dict[str, Any]:
    """Settings of `bench.workbench.Runtime` from the two options that have them."""
    found = settings_of(texts, "--runtime", "workers=2")
    return found if address is None else {**found, "address": address}
