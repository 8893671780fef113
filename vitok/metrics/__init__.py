"""Evaluation: what is measured, on what, and how it becomes numbers.

Per example: `image` (PSNR, SSIM), `latent` (coded bits), `reconstruction` (both
of a model), collected by `table` and written by `files`. Of distributions, from
features of a network (`networks`), gathered by `features`: `moments`,
`frechet`, `kernel`, `inception_score`, against a `reference`, put together by
`distributions`.
`numbers` defines each by name; `protocol` says what a number belongs to, and
refuses to compare what differs.

`protocol`, `numbers`, `table` and the metrics of distributions do not import
JAX, so that analysis can read them.
"""
