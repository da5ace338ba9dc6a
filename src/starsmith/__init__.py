"""Starsmith: an open forge for code language models.

The package opens no room by itself: `import starsmith` costs nothing, and each room imports only what it
needs (the data rooms never import PyTorch, the model never imports the data rooms).
"""

__version__ = "0.1.0"
