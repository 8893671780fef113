"""Weights in and out: a cache of converted networks, readers of their files.

It sits low, beside sizes: nothing here knows a network. How a published file's
names map to a module's parameters is written beside that module.
"""
