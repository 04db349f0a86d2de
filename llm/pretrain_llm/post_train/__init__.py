"""Post-training stages: one file a method, each from a Hugging Face folder to another.

dataset   chat examples from JSON Lines                          standard library
stage     checks what goes in, writes what comes out
sft       supervised fine-tuning                                 TRL
"""
