"""What a trained model knows: log p(x), latents in use, the grid of Figure 4. Skip it on a first reading."""
