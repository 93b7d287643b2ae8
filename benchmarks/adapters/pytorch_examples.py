"""The loop of PyTorch's VAE example, in other words: a picture and a tensor of each digit, a batch's loss a sum."""

import torch
import torch.nn.functional as F
from PIL import Image
from torch_parts import Encoder, make_decoder
from torchvision.transforms import ToTensor

to_tensor = ToTensor()


class Peer(torch.nn.Module):
    def __init__(self, images):
        super().__init__()
        torch.manual_seed(1)
        self.posterior, self.layers = Encoder(), make_decoder(torch.nn.Sigmoid())
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        pictures = (images * 255).round().astype("uint8").reshape(-1, 28, 28)
        self.loader = torch.utils.data.DataLoader(pictures, 128, shuffle=True, collate_fn=collate)

    def epoch(self):
        for batch in self.loader:
            self.optimizer.zero_grad()
            loss = self.loss(batch.view(-1, 784))
            loss.backward()
            self.optimizer.step()
            loss.item()

    def loss(self, x):
        mu, logvar = self.posterior(x)
        y = self.layers(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        divergence = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()
        return F.binary_cross_entropy(y, torch.as_tensor(x), reduction="sum") + divergence

    def decoder(self):
        return self.layers[0], self.layers[2]

    def evaluate(self, x):
        return sum(self.loss(batch).item() for batch in torch.as_tensor(x).split(128)) / len(x)


def collate(pictures):
    return torch.stack([to_tensor(Image.fromarray(picture)) for picture in pictures])
