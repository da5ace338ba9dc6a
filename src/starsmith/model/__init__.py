"""StarCoder2 as a pure model: configuration, network, generation, and the Hugging Face folder format.

This room knows tokens and tensors; it knows nothing of text, corpora or training, and imports nothing of the
project but `errors`.
"""
