"""Training losses: pure functions of a reconstruction and its original."""

from vitok.losses.pixels import pixel as pixel
