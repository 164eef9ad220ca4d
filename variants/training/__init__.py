"""Training and compressing PyTorch modules: recipes that compose, each recording what it did and what that cost."""
