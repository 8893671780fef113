"""Evaluation: what is measured (`image`, `latent`), on what (`protocol`), how
per-example values become numbers (`table`) and files (`files`).

`protocol` and `table` do not import JAX, so that analysis can read them.
"""
