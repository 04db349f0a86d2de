"""Checkpoints that are whole, proven by a manifest that is written last.

selection   which checkpoint to load, which folders to delete           pure
folders     step folders on disk; each operation may be killed midway
restoring   all ranks verify together and agree on the one to load
sealing     hash, merge and write the manifest while training goes on
"""
