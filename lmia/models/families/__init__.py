"""Model families: one file holds all that is special to one, behind `lmia.models.denoiser.Denoiser`."""
