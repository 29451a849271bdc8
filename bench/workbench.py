"""What a stage works with on a worker: inputs from the store, models on the device, both kept while they are used."""

import contextlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from bench.store import Cache, Corrupt, InfrastructureError, InputRef, Manifest, Store

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures
    from lmia.models.denoiser import Denoiser

SAVE_PARTIAL_S = 60.0


class Runtime(BaseModel):
    """How a campaign runs: recorded, overridable, never part of an address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        None, description="Ray cluster to join (HOST:PORT, auto); none starts one on this machine"
    )
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$", description="what the workers compute on")
    workers: int | None = Field(None, ge=1, description="workers at a time; none takes all of the cluster")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs and threads of a worker")
    gpus_per_training: float = Field(1.0, gt=0, le=8, description="GPUs of a fine-tune")
    gpus_per_attack: float = Field(0.25, gt=0, le=1, description="GPUs of an attack training: several share one")
    attention: str = Field("auto", pattern="^(auto|sdpa|xformers)$", description="attention kernels on the worker")
    cache: str | None = Field(None, description="node-local cache folder; none: LMIA_CACHE or a temporary folder")
    cache_bytes: int = Field(64 << 30, ge=1 << 20, description="bound of the node-local cache")
    wait_for_devices_s: float = Field(300.0, ge=0, description="seconds to wait for room in a joined cluster")
    verify: str = Field("auto", pattern="^(auto|content|size)$", description="how finished parts are checked")


class Workbench:
    """Inputs and models for the jobs that one worker does, one after the other."""

    def __init__(self, store: Store, runtime: Runtime, device: str = "cpu", revision: str = ""):
        self.store = store
        self.runtime = runtime
        self.device = device
        self.revision = revision
        self.cache = Cache(Path(runtime.cache) if runtime.cache else None, runtime.cache_bytes)
        self._models: OrderedDict[tuple[str, ...], Denoiser] = OrderedDict()
        self._pictures: OrderedDict[str, Pictures] = OrderedDict()
        self._manifests: dict[str, Manifest] = {}
        self._names: dict[tuple[str, str], str] = {}  # (address, content digest) -> manifest, from the last listing

    def manifest(self, ref: InputRef) -> Manifest:
        """The manifest of an input."""
        if ref.manifest not in self._manifests:
            try:
                self._manifests[ref.manifest] = self.store.manifest(ref.manifest)
            except FileNotFoundError:  # since it was listed; it is remade like one that is damaged
                raise Corrupt(ref.manifest, "", "it is missing") from None
        return self._manifests[ref.manifest]

    def pictures(self, ref: InputRef) -> "Pictures":
        """The pictures of an input, decoded lazily, the last few kept."""
        from lmia.data.pictures import Pictures

        key = ref.address + ref.digest
        if key not in self._pictures:
            manifest = self.manifest(ref)
            parts = [self.store.part_bytes(manifest, part) for part in manifest.parts]
            self._pictures[key] = Pictures.from_parquet(parts)
        self._pictures.move_to_end(key)
        while len(self._pictures) > 8:
            self._pictures.popitem(last=False)
        return self._pictures[key]

    def layers(self, ref: InputRef) -> list[Path]:
        """Local folders that make a model: the base first, then what lies over it."""
        manifest = self.manifest(ref)
        below: list[Path] = []
        if "base" in manifest.inputs:
            base = manifest.inputs["base"]
            below = self.layers(self.find(base["address"], base["digest"]))
        return [*below, self.cache.fetch(self.store, manifest)]

    def find(self, address: str, digest: str) -> InputRef:
        """An input's input, by its address and content."""
        if (address, digest) not in self._names:
            self._names = {
                (entry.address, entry.digest): entry.key for entries in self.store.index().values() for entry in entries
            }
        if (address, digest) in self._names:
            return InputRef(address, digest, self._names[address, digest])
        raise Corrupt(f"manifests/model-{address}.0.0.{digest}.json", "", "it is missing")

    def model(self, ref: InputRef, dtype: str) -> "Denoiser":
        """A model on this worker's device; the last two stay loaded."""
        from lmia.models.load import load_model

        key = (ref.address, ref.digest, dtype)
        if key not in self._models:
            while len(self._models) >= 2:
                self._models.popitem(last=False)
            self._models[key] = load_model(
                self.layers(ref), device=self.device, dtype=dtype, attention=self.runtime.attention
            )
        self._models.move_to_end(key)
        return self._models[key]

    def tensors(self, ref: InputRef) -> dict[str, Any]:
        """The tensors of an `attack` artifact."""
        from safetensors.torch import load

        return load(self.store.part(self.manifest(ref), "learned.safetensors"))

    @contextlib.contextmanager
    def partial(self, name: str) -> Iterator[Path]:
        """A folder for the progress of a training job, there again if the job is tried again; removed when it ends.

        On a store on this disk it lies in the store; otherwise it is copied there and back, so that a job goes on
        from it on another node.
        """
        if self.store.local:
            folder = self.store.folder(f"partial/{name}")
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
            return
        folder = self.cache.ready() / "partial" / name
        away = f"partial/{name}"
        for key in self.store.under(away):
            data = self.store.read(key)  # first of all, for it refuses what leads out of the store
            target = folder / key.removeprefix(f"{away}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        stop = threading.Event()

        def copy_away() -> None:
            sent: dict[Path, int] = {}
            while not stop.wait(SAVE_PARTIAL_S):
                # What lies deeper goes first: the progress at the top says that it is there. A round that fails
                # (or meets a folder that is being replaced) is taken up again by the next one.
                with contextlib.suppress(OSError, InfrastructureError):
                    for path in sorted(_settled(folder), key=lambda path: (-len(path.parts), path)):
                        written = path.stat().st_mtime_ns
                        if sent.get(path) != written:
                            self.store.write(f"{away}/{path.relative_to(folder)}", path.read_bytes())
                            sent[path] = written

        thread = threading.Thread(target=copy_away, daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            stop.set()
            thread.join()
        for key in self.store.under(away):
            self.store.remove(key)
        shutil.rmtree(folder, ignore_errors=True)

    def numerics(self, attention: str = "") -> str:
        """The class of machines that compute the same bits: kind of device, libraries, attention kernels if any."""
        import platform

        import numpy
        import torch

        if self.device.startswith("cuda"):
            chip = torch.cuda.get_device_name().replace(" ", "-")
        else:
            chip = f"cpu-{platform.machine()}-{torch.backends.cpu.get_cpu_capability().lower().replace(' ', '')}"
        version = torch.__version__.split("+")[0]
        machine = f"{chip}/torch-{version}/numpy-{numpy.__version__}"
        return f"{machine}/attention-{attention}" if attention else machine


def _settled(folder: Path) -> list[Path]:
    """Files under a folder that are not being written: nothing hidden, nothing in `*.writing`."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(p.startswith(".") or p.endswith(".writing") for p in path.relative_to(folder).parts)
    ]


def mixed(numerics: Iterable[str]) -> bool:
    """Whether the numbers come from more than one class of machines, or from more than one kind of attention."""
    split = [name.partition("/attention-") for name in numerics]
    return len({machine for machine, _, _ in split}) > 1 or len({kind for _, _, kind in split if kind}) > 1
