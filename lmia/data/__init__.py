"""Where faces come from: the synthetic population, folders and LFW; parts by identity, captions, watermarks."""
