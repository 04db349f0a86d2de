"""What several architectures share: no architecture itself, and nothing of the device.

adapter   weights by Hugging Face's names, where only the names differ
"""
