"""What a trained model knows: log p(x), and which latents are in use. Skip it on a first reading."""
