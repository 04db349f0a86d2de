"""What several architectures share: no architecture itself, and nothing of the device.

decoder_spec  torchtitan's ModelSpec, parallelised as Llama
adapter       weights by Hugging Face's names, where only the names differ
hf_config     a config.json from the shapes and back
biased        LayerNorm, biases and GELU: what the GPT family adds to Llama's parts
embedded      a decoder that does more with its tokens than look them up
nope          no rotation
sharding      tensor parallelism of a block with two matrices in its feed-forward
"""
