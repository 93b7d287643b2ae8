"""One small file per peer of peers.py, run in the peer's own environment by worker.py.

Each defines a class Peer, made of the training images (N, 784), float32 in [0, 1]. It prints nothing. Its methods:

    epoch()       trains for an epoch in batches of 128
    loss(x)       the number that the package calls the loss of a batch x (B, 784), with its own noise
    posterior(x)  mu and logvar of q(z|x), (B, 2) each
    decoder()     its two layers, from z to the hidden layer and from there to the logits of the pixels
    evaluate(x)   what the package's own evaluation makes of x in batches of 128; only where it has one
    log_p(x)      its own estimate of log p(x) at its defaults, the mean over x; only where it has one
"""
