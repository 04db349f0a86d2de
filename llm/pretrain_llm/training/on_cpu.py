"""Importing this makes torchtitan run on CPU; to be done before anything imports torchtitan."""

from . import cpu

cpu.enable()
