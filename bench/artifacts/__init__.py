"""The kinds of artifacts, one file each: spec, inputs, constructor. Below planning and stages, which both use them."""
