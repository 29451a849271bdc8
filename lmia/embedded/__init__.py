"""The model that is shipped with the package: a tiny Stable Diffusion, remade by `lmia pretrain`."""
