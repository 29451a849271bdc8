"""Something to audit, with a known answer: folders of synthetic people and models that were tuned on some of them.

python -m tests.bench.audit_world FOLDER        # then, in FOLDER: lmia audit --model leaks --base tiny ...
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

from lmia.data.sources import SOURCES
from lmia.embedded import embedded
from lmia.embedded.testing import random_model
from lmia.finetune.methods import METHODS
from lmia.finetune.train import finetune

SETS = {"members": "north", "nonmembers": "north", "shadow": "north", "other": "south"}


def write_people(folder: Path, source: str, people: range, photos: int = 2, size: int = 64) -> None:
    """Photos of people as PERSON/NUMBER.png with a caption in a text file beside each."""
    kind = SOURCES.get("population")
    names = [f"{source}-{number:04d}" for number in people]
    pictures = kind.pictures(kind.Spec(size=size, people=400), source, "audit", names, range(photos))
    images = pictures.images()
    for record, who, caption, image in zip(pictures.ids, pictures.identities, pictures.captions, images, strict=True):
        path = folder / str(who) / f"{record.rsplit('/', 1)[1]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        path.with_suffix(".txt").write_text(caption + "\n")


def write_sets(folder: Path, people: int, size: int = 64) -> None:
    """The sets of SETS, all of different people."""
    for number, (name, source) in enumerate(SETS.items()):
        write_people(folder / name, source, range(number, len(SETS) * people, len(SETS)), size=size)


def tune(base: Path, members: Path, out: Path, epochs: int, method: str = "full", **settings) -> Path:
    """A model tuned on the pictures of a folder: a whole diffusers folder, or for `lora` a peft adapter's folder."""
    kind = SOURCES.get("imagefolder")
    spec = kind.Spec(root=str(members), label="members", size=settings.pop("size", 64))
    pictures = kind.all_of(spec, "members", kind.identities(spec, "members"))
    how = METHODS.get(method)(**{"lr": 1e-3, "batch_size": 16, "warmup_steps": 20, **settings})
    finetune([base], pictures, how, epochs=[epochs], out=lambda _: out.with_name(out.name + ".overlay"))
    overlay = out.with_name(out.name + ".overlay")
    if method == "lora":
        shutil.move(overlay / "lora", out)
    else:
        shutil.copytree(base, out)
        shutil.rmtree(out / "unet")
        shutil.move(overlay / "unet", out / "unet")
    shutil.rmtree(overlay)
    return out


def small_world(folder: Path) -> Path:
    """On random weights, in seconds: `base`, a `model` that has memorised its members, a `lora`."""
    write_sets(folder, 16, size=32)
    base = random_model(folder / "base", seed=0)
    tune(base, folder / "members", folder / "model", 250, size=32, lr=1e-2, flip=False, warmup_steps=0)
    tune(base, folder / "members", folder / "lora", 2, "lora", size=32)
    return folder


def tiny_world(folder: Path) -> Path:
    """On the embedded base, in a minute or two: `leaks` is tuned on the members, `clean` on other people like them."""
    write_sets(folder, 40)
    for model, trained_on in (("leaks", "members"), ("clean", "shadow")):
        tune(embedded("tiny"), folder / trained_on, folder / model, 16, lr=5e-4, batch_size=8)
    return folder


def main() -> None:
    """Makes the world on the embedded base in a folder."""
    tiny_world(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
