"""What several architectures share: no architecture itself, and nothing of the device.

adapter   weights by Hugging Face's names, where only the names differ
biased    LayerNorm, biases and GELU: what the GPT family adds to Llama's parts
"""
