"""What a campaign asked for, kept on the store beside its rows: `campaigns/NAME.json`."""

from pydantic import Field, JsonValue

from bench.axes import Scalar
from bench.benchmark import Evidence, Role
from bench.store import Damaged, Store
from lmia.metrics.judge import Estimand
from lmia.specs import RequestError, Spec


class CellRecord(Spec):
    """A cell, and what of its row must be known where there is none (yet)."""

    cell: str = Field(description="the row's address")
    axes: dict[str, Scalar] = Field(description="those that apply")
    estimand: Estimand
    role: Role
    flags: tuple[str, ...] = ()
    blocks: tuple[str, ...] = Field((), description="blocks of the grid that ask for it")
    title: str = ""
    evidence: Evidence
    access: str = Field(description="what the attack asks of the target")
    shadow: str | None = Field(None, description="whose pictures the attacker needs; null in old records: nobody's")


class CampaignRecord(Spec):
    """A benchmark as it was asked for."""

    name: str
    title: str = ""
    description: str = ""
    default: dict[str, Scalar] = Field(description="the cell that was named in advance, as far as its axes apply")
    suite: tuple[dict[str, Scalar], ...] = Field((), description="the targets on which attacks are ranked")
    overrides: tuple[str, ...] = ()
    benchmark: dict[str, JsonValue] = Field(description="all of it, defaults included")
    revision: str = Field(description="of the code that asked")
    asked_at: str = ""
    cells: tuple[CellRecord, ...]
    failed: dict[str, str] = Field({}, description="reasons by address, of cells that could not be made")

    def write(self, store: Store) -> None:
        """Keep it; one of the same name is replaced."""
        store.write_json(_key(self.name), self.resolved())

    @classmethod
    def read(cls, name: str, store: Store) -> "CampaignRecord":
        """The record of a campaign.

        Raises:
            RequestError: no such campaign on this store.
            Damaged: its file is.
        """
        try:
            if "/" in name or "\0" in name:
                raise FileNotFoundError(name)
            record = store.read_record(_key(name), cls)
        except FileNotFoundError:
            known = ", ".join(campaign_names(store)) or "none"
            raise RequestError(
                f"no campaign {name!r} on the store {store.uri} (there: {known}); `lmia run {name}` first"
            ) from None
        if record.name != name:
            raise Damaged(_key(name), f"it is the record of {record.name!r}")
        return record


def campaign_names(store: Store) -> list[str]:
    """Campaigns that were run on a store."""
    return [name.removesuffix(".json") for name in store.names("campaigns") if name.endswith(".json")]


def _key(name: str) -> str:
    return f"campaigns/{name}.json"
