"""From raw text to packed token shards, and back to training samples.

index    what the shards are (index.json)                       standard library
packed   memory-mapped samples in a seeded order                numpy
the rest makes the shards (`python -m pretrain_llm.data`)       datatrove, tokenizers
"""
