"""multivae: its MVAE with one modality, without subsets and warm-up, and layers of this size, in its BaseTrainer."""

import torch
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models import MVAE, MVAEConfig
from multivae.trainers import BaseTrainer, BaseTrainerConfig
from pythae_parts import SIZES, Decoder, Encoder

torch.distributions.Distribution.set_default_validate_args(False)  # its Bernoulli refuses grey pixels


class Peer:
    def __init__(self, images):
        torch.manual_seed(1)
        settings = {"decoders_dist": {"x": "bernoulli"}, "use_subsampling": False, "warmup": 0}
        config = MVAEConfig(n_modalities=1, latent_dim=2, input_dims={"x": (784,)}, **settings)
        self.model = MVAE(config, {"x": Encoder()}, {"x": Decoder()})
        self.trainer = self.make_trainer(images)

    def make_trainer(self, images):
        config = BaseTrainerConfig("runs", learning_rate=1e-3, no_cuda=True, **SIZES)
        trainer = BaseTrainer(self.model, dataset(images), dataset(images), config)
        trainer.prepare_training()
        return trainer

    def epoch(self):
        self.trainer.train_step(1)

    def loss(self, x):
        return self.model(dataset(x)).loss

    def posterior(self, x):
        return self.model.compute_mu_log_var_subset(dataset(x), ["x"])

    def decoder(self):
        return self.model.decoders["x"].layers[0], self.model.decoders["x"].layers[2]

    def evaluate(self, x):
        return self.make_trainer(x).eval_step(1)[0]

    def log_p(self, x):
        return -self.model.compute_joint_nll(dataset(x)) / len(x)


def dataset(x):
    return MultimodalBaseDataset({"x": torch.as_tensor(x)})
