"""LoCon, LoHa, LoKr, DoRA and whole differences as LyCORIS, kohya and ComfyUI write them; cloneofsimo's LoRA.

Each changes weights W of single layers, with s = alpha / rank (alpha = rank where there is none):

- LoRA, LoCon: W + s U D, a convolution's with its kernel in D, or in a core C between both (Tucker);
- LoHa: W + s (A1 B1) * (A2 B2), the products entry by entry (Hyeon-Woo et al. 2022);
- LoKr: W + s K1 (x) K2, Kronecker's product, either factor whole or low-rank; s = 1 where both are whole;
- DoRA over any of them: m V / |V|, V the changed weight, norms over all but the axis that m has (Liu et al. 2024);
- differences `diff`, `diff_b`, `w_norm`, `b_norm`: added as they are.

Source: Yeh et al. 2024, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation", and
the library's `lycoris/functional`. What none of the readers uses is refused, never left out.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmia.models.headers import metadata_of
from lmia.models.spellings import part_of, spellings
from lmia.specs import RequestError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

LAYER_FILE = "layers.safetensors"
"""Name in an overlay of an adapter that is read here."""
ORDERED = re.compile(r"(?P<part>unet|text_encoder):(?P<at>\d+):(?P<side>up|down)")
"""cloneofsimo's names: the layer's number, not its name."""
TOKEN = re.compile(r"<\w[\w-]*>")
SUFFIX = re.compile(
    r"(?P<layer>.+?)[._](?P<suffix>lora[._](?:down|up|mid|A|B)(?:\.default)?\.weight|alpha|dora_scale|"
    r"lora_magnitude_vector(?:\.default)?(?:\.weight)?|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|"
    r"diff_b|diff|w_norm|b_norm)"
)
OLD_ORDER = ("attn1.", "ff.", "attn2.", "k_proj", "v_proj", "q_proj", "out_proj")
SPELLED = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
}


def check_tensors(tensors: "Mapping[str, Tensor]", reference: str) -> None:
    """Refuses weights that are no numbers.

    Raises:
        RequestError: one is NaN or infinite.
    """
    import torch

    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise RequestError(
                f"model = {reference!r}: {name} holds NaN or infinite numbers: the training had failed before it was "
                "saved; take an earlier checkpoint"
            )


def merge_layers(file: Path, modules: "Mapping[str, Module]") -> None:
    """Adds an adapter to the weights of the layers that it names.

    Raises:
        RequestError: it does not fit, or something in it has no place.
    """
    from safetensors.torch import load_file

    reference = str(file.resolve())
    tensors = load_file(file)
    check_tensors(tensors, reference)
    if any(ORDERED.fullmatch(name) for name in tensors):
        groups = _by_number(tensors, metadata_of(file), modules, reference)
    else:
        groups = _by_name(tensors, modules, reference)
    changes = []
    for (part, name), group in groups.items():
        layer = modules[part].get_submodule(name)
        try:
            changes.append((layer, _changed(layer, dict(group))))
        except (_Misfit, RuntimeError, IndexError, ValueError) as error:
            keys, said = ", ".join(sorted(group)), " ".join(str(error).split())[:200]
            raise RequestError(
                f"model = {reference!r}: {part} {name} ({keys}) does not fit the base: {said}"
            ) from error
    for layer, values in changes:  # only once all of it is known to fit
        for kind, value in values.items():
            parameter = getattr(layer, kind)
            parameter.data = value.to(parameter.dtype).contiguous()


class _Misfit(ValueError):
    """An adapter's tensors do not make a change of the layer."""


def _by_name(tensors: "dict[str, Tensor]", modules: Any, reference: str) -> "dict[tuple[str, str], dict[str, Tensor]]":
    known = {part: spellings(part, modules[part]) for part in ("unet", "text_encoder") if part in modules}
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in tensors.items():
        match = SUFFIX.fullmatch(key)
        part = part_of(key)
        name = known.get(part, {}).get(match["layer"]) if match else None
        if match is None or (name is None and part in known):
            raise RequestError(
                f"model = {reference!r}: {key} has no place in the base's {part}: an adapter for another model (Stable "
                "Diffusion XL?), or of a form that is not read"
            )
        if name is None:
            continue  # a later layer has replaced this part
        suffix = match["suffix"].replace("lora.", "lora_").replace(".default", "")
        group = groups.setdefault((part, name), {})
        if (said := SPELLED.get(suffix, suffix)) in group:
            raise RequestError(f"model = {reference!r}: {key} is there under two names")
        group[said] = value
    return groups


def _by_number(
    tensors: "dict[str, Tensor]", noted: dict[str, str], modules: Any, reference: str
) -> "dict[tuple[str, str], dict[str, Tensor]]":
    """Cloneofsimo's layers: the linear ones below the classes that the file names, in the order of the module tree."""
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    for part in ("unet", "text_encoder"):
        own = {m["at"]: m for key in tensors if (m := ORDERED.fullmatch(key)) and m["part"] == part}
        if not own or part not in modules:
            continue
        try:
            classes = set(json.loads(noted[part]))
        except (KeyError, ValueError, TypeError) as error:
            raise RequestError(
                f"model = {reference!r}: its metadata do not say which layers of the {part} it is for"
            ) from error
        names = _linear_below(modules[part], classes)
        if len(names) != len(own) or sorted(map(int, own)) != list(range(len(own))):
            raise RequestError(
                f"model = {reference!r}: a LoRA of cloneofsimo's for {len(own)} layers of the {part}; the base has "
                f"{len(names)} of these kinds: an adapter for another model"
            )
        for at, name in enumerate(names):
            group = {f"lora_{side}.weight": tensors.get(f"{part}:{at}:{side}") for side in ("up", "down")}
            if missing := [side for side, value in group.items() if value is None]:
                side = missing[0].removeprefix("lora_").removesuffix(".weight")
                raise RequestError(f"model = {reference!r}: {part}:{at} has no {side}")
            groups[part, name] = {side: value for side, value in group.items() if value is not None}
    if unused := [key for key in tensors if not ORDERED.fullmatch(key) and not TOKEN.fullmatch(key)]:
        raise RequestError(f"model = {reference!r}: a LoRA of cloneofsimo's with {unused[0]}, which has no place in it")
    return groups


def _linear_below(module: Any, classes: set[str]) -> list[str]:
    import torch

    names: dict[str, None] = {}
    for above, ancestor in module.named_modules():
        if type(ancestor).__name__ in classes:
            for below, layer in ancestor.named_modules():
                if isinstance(layer, torch.nn.Linear):
                    names[f"{above}.{below}"] = None
    blocks: dict[str, int] = {}

    def place(name: str) -> tuple[int, int]:
        """The order of the libraries that this form was written with: attn1, ff, attn2; k, v, q, out."""
        step = next((one for one in OLD_ORDER if f".{one}" in name), "")
        block = name.partition(f".{step}")[0] if step else name
        return blocks.setdefault(block, len(blocks)), OLD_ORDER.index(step) if step else 0

    return sorted(names, key=place)


def _changed(layer: Any, group: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """New weights of a layer, float32, by "weight" and "bias"."""
    weight = layer.weight.data.float()
    found: dict[str, Tensor] = {}
    for said, kind in (("diff", "weight"), ("w_norm", "weight"), ("diff_b", "bias"), ("b_norm", "bias")):
        if said in group:
            value, own = group.pop(said).float(), getattr(layer, kind, None)
            if own is None or own.numel() != value.numel():
                raise _Misfit(f"{said} is {list(value.shape)}, {kind} is {None if own is None else list(own.shape)}")
            found[kind] = own.data.float() + value.reshape(own.shape)
    magnitude = group.pop("dora_scale", None)
    if delta := _delta(group, weight):
        (value,) = delta
        found["weight"] = found.get("weight", weight) + value
    elif magnitude is not None:
        raise _Misfit("a magnitude (DoRA) without the low-rank weights that it is for")
    group.pop("alpha", None)
    if group:
        raise _Misfit(f"{', '.join(sorted(group))} cannot be used")
    if magnitude is not None:
        found["weight"] = _of_magnitude(found["weight"], magnitude.float())
    if not found:
        raise _Misfit("an alpha alone")
    return found


def _of_magnitude(weight: "Tensor", magnitude: "Tensor") -> "Tensor":
    """Weights m V / |V|; m has an entry per output (peft, LyCORIS), or per input (the paper, LyCORIS's older files)."""
    outward = magnitude.numel() == weight.shape[0] and (magnitude.ndim == 1 or magnitude.shape[0] == weight.shape[0])
    axis = 0 if outward else 1
    if magnitude.numel() != weight.shape[axis]:
        raise _Misfit(f"a magnitude of {magnitude.numel()} entries for weights {list(weight.shape)}")
    shape = [1] * weight.ndim
    shape[axis] = -1
    others = [n for n in range(weight.ndim) if n != axis]
    return weight * (magnitude.reshape(shape) / weight.square().sum(dim=others, keepdim=True).sqrt())


def _delta(group: "dict[str, Tensor]", weight: "Tensor") -> "tuple[Tensor, ...]":
    """The scaled change of a weight, if the group has one; takes what it uses out of the group."""
    import torch

    def take(name: str) -> Any:
        value = group.pop(name, None)
        return None if value is None else value.float()

    rank: float | None
    if "lora_down.weight" in group or "lora_up.weight" in group:
        down, up, mid = (take(f"lora_{side}.weight") for side in ("down", "up", "mid"))
        if down is None or up is None:
            raise _Misfit(f"{'lora_up' if up is None else 'lora_down'} is missing")
        rank = down.shape[0]
        if mid is None:
            product = up.flatten(1) @ down.flatten(1)
        else:
            product = torch.einsum("mn...,im,nj->ij...", mid, up.flatten(1), down.flatten(1))
        inner = down.shape[1] if mid is None else down.flatten(1).shape[1]
        if (up.shape[0], inner) != tuple(weight.shape[:2]):
            raise _Misfit(f"it changes {up.shape[0]} x {inner}, the weight is {list(weight.shape)}")
    elif any(name.startswith("hada_") for name in group):
        a1, b1, a2, b2 = (take(f"hada_w{n}_{side}") for n in (1, 2) for side in "ab")
        if any(one is None for one in (a1, b1, a2, b2)):
            raise _Misfit("one of the four factors of a LoHa is missing")
        cores = take("hada_t1"), take("hada_t2")
        rank = b1.shape[0]
        product = _product(a1, b1, cores[0]) * _product(a2, b2, cores[1])
    elif any(name.startswith("lokr_") for name in group):
        factors, low = [], []
        for n in (1, 2):
            whole, a, b, core = take(f"lokr_w{n}"), take(f"lokr_w{n}_a"), take(f"lokr_w{n}_b"), take(f"lokr_t{n}")
            if (whole is None) == (a is None) or (a is None) != (b is None) or (core is not None and a is None):
                raise _Misfit(f"factor {n} of a LoKr is missing, or there twice")
            factors.append(whole if whole is not None else _product(a, b, core))
            low += [] if b is None else [b.shape[0]]
        rank = low[0] if low else None
        one, two = factors
        if two.ndim == 2 and weight.ndim > 2:
            outer, within = weight.shape[0] // one.shape[0], weight.shape[1] // one.shape[1]
            two = two.reshape(outer, within, *weight.shape[2:])
        product = torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - one.ndim)), two.contiguous())
    else:
        return ()
    if product.numel() != weight.numel() or product.shape[0] != weight.shape[0]:
        raise _Misfit(f"its change is {list(product.shape)}, the weight is {list(weight.shape)}")
    alpha = group.pop("alpha", None)
    scale = 1.0
    if alpha is not None and rank is not None and (said := float(alpha)) != 0:  # 0 stands for the rank, as trainers say
        scale = said / rank
    if not math.isfinite(scale):
        raise _Misfit("its alpha is no number")
    return (product.reshape(weight.shape) * scale,)


def _product(a: "Tensor", b: "Tensor", core: "Tensor | None") -> "Tensor":
    import torch

    return a @ b.flatten(1) if core is None else torch.einsum("ij...,ip,jr->pr...", core, a, b)
