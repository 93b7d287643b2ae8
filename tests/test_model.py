"""The terms of the bound, against torch.distributions and finite differences; and loading a best.pt."""

import pickle

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from model import VAE, StandardNormal, bce, kld, log_normal
from support.errors import UserError
from support.run import checkpoint
from support.run.config import Config, to_plain
from support.seeds import generator

SOURCE = generator(0)
LOGITS = 4 * torch.randn(5, 784, generator=SOURCE)
X = torch.rand(5, 784, generator=SOURCE)
MU = torch.randn(5, 3, generator=SOURCE)
LOGVAR = torch.randn(5, 3, generator=SOURCE)
EPS = torch.randn(5, 3, generator=SOURCE)


def small_vae():
    torch.manual_seed(0)
    return VAE(3, (20, 10))


def test_bce_is_negative_bernoulli_log_likelihood():
    expected = -Bernoulli(logits=LOGITS, validate_args=False).log_prob(X).sum(1)
    torch.testing.assert_close(bce(LOGITS, X), expected)


def test_bce_is_exact_where_sigmoid_saturates():
    logits = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    loss = bce(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    loss.sum().backward()
    assert loss.item() == 2e4
    assert logits.grad.tolist() == [[0, 0, 1, -1]]


def test_the_gradient_of_bce_is_sigmoid_minus_x():
    logits = torch.tensor([[-100.0, -3.0, 0.0, 0.0, 3.0, 100.0]], requires_grad=True)
    x = torch.tensor([[0.0, 0.25, 0.0, 1.0, 0.25, 0.5]])
    bce(logits, x).backward()
    torch.testing.assert_close(logits.grad, torch.sigmoid(logits.detach()) - x)


def test_bce_of_bfloat16_logits_is_float32():
    assert bce(LOGITS.bfloat16(), X).dtype == torch.float32


def test_kld_is_divergence_from_standard_normal():
    posterior = Normal(MU, torch.exp(0.5 * LOGVAR))
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kld(MU, LOGVAR), expected)
    torch.testing.assert_close(StandardNormal(3).kl(MU, LOGVAR, None), expected)
    assert kld(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_log_normal_is_log_density():
    expected = Normal(MU, torch.exp(0.5 * LOGVAR)).log_prob(EPS).sum(1)
    torch.testing.assert_close(log_normal(EPS, MU, LOGVAR), expected)
    torch.testing.assert_close(StandardNormal(3).log_prob(EPS), Normal(0.0, 1.0).log_prob(EPS).sum(1))


def test_gradients_of_terms_agree_with_finite_differences():
    logits = LOGITS[:2, :20].double().requires_grad_()
    x = X[:2, :20].double()
    mu = MU.double().requires_grad_()
    logvar = LOGVAR.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: bce(values, x), logits)
    assert torch.autograd.gradcheck(kld, (mu, logvar))
    assert torch.autograd.gradcheck(lambda m, v: log_normal(EPS.double(), m, v), (mu, logvar))


def test_reparameterize_is_differentiable_in_mu_and_logvar():
    mu = MU.clone().requires_grad_()
    logvar = LOGVAR.clone().requires_grad_()
    z = VAE(3).reparameterize(mu, logvar, EPS)
    z.sum().backward()
    torch.testing.assert_close(z.detach(), MU + torch.exp(0.5 * LOGVAR) * EPS)
    torch.testing.assert_close(mu.grad, torch.ones(5, 3))
    torch.testing.assert_close(logvar.grad, 0.5 * torch.exp(0.5 * LOGVAR) * EPS)


def test_reparameterized_noise_has_mean_mu_and_deviation_sigma():
    mu = torch.full((100_000, 1), 2.0)
    logvar = 2 * torch.log(torch.full((100_000, 1), 0.5))
    z = VAE(1).reparameterize(mu, logvar, torch.randn(100_000, 1, generator=generator(1)))
    assert z.mean().item() == pytest.approx(2, abs=0.01)
    assert z.std().item() == pytest.approx(0.5, abs=0.01)


def test_forward_gives_both_terms_at_the_sample_it_returns():
    model = small_vae()
    terms = model(X, EPS)
    mu, logvar = model.encode(X)
    z = mu + torch.exp(0.5 * logvar) * EPS
    expected = (bce(model.decode(z), X), kld(mu, logvar), z, mu)
    for term, value in zip(terms, expected, strict=True):
        torch.testing.assert_close(term, value)


def test_gradient_of_loss_is_that_of_the_textbook_bound():
    model = small_vae()
    reconstruction, divergence, *_ = model(X, EPS)
    ours = torch.autograd.grad((reconstruction + divergence).mean(), list(model.parameters()))
    mu, logvar = model.encode(X)
    sigma = torch.exp(0.5 * logvar)
    likelihood = Bernoulli(logits=model.decode(mu + sigma * EPS), validate_args=False).log_prob(X).sum()
    elbo = likelihood - kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)).sum()
    textbook = torch.autograd.grad(-elbo / len(X), list(model.parameters()))
    torch.testing.assert_close(ours, textbook, rtol=1e-4, atol=1e-6)


def test_default_network_is_784_400_2():
    model = VAE()
    sizes = [tuple(layer.weight.shape) for layer in (*model.encoder, *model.decoder) if hasattr(layer, "weight")]
    assert sizes == [(400, 784), (4, 400), (400, 2), (784, 400)]
    assert sum(parameter.numel() for parameter in model.parameters()) == 631_188
    assert [tuple(term.shape) for term in model(X, torch.zeros(5, 2))] == [(5,), (5,), (5, 2), (5, 2)]


def test_decoder_mirrors_encoder():
    decoder = VAE(2, (30, 20)).decoder
    assert [layer.out_features for layer in decoder if hasattr(layer, "out_features")] == [20, 30, 784]


def test_samples_are_images_that_follow_from_generator():
    model = VAE()
    images = model.sample(7, generator(3))
    assert images.shape == (7, 784)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, model.sample(7, generator(3)))
    assert not torch.equal(images, model.sample(7, generator(4)))


def best_pt(config, model):
    """The content of a best.pt."""
    row = {"epoch": 1, "test_total": 1.0}
    return {"format": checkpoint.FORMAT, "config": to_plain(config), "row": row, "model": model.state_dict()}


def test_load_model_returns_saved_model(tmp_path):
    model = small_vae()
    config = Config(latent_dim=3, hidden_dims=(20, 10))
    torch.save(best_pt(config, model), tmp_path / "best.pt")
    loaded = checkpoint.load_model(tmp_path / "best.pt")
    assert not loaded.training
    assert torch.equal(loaded.encode(X)[0], model.encode(X)[0])
    assert torch.equal(loaded.sample(3, generator(0)), model.sample(3, generator(0)))
    loaded(X, EPS)[0].sum().backward()  # it can be trained further


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


DEFAULT = best_pt(Config(), VAE())
REFUSED = {
    "no weights": {**DEFAULT, "model": {}},
    "no settings": {name: DEFAULT[name] for name in ("format", "row", "model")},
    "settings of another version": {**DEFAULT, "config": {"warp": 2}},
    "huge network": {**DEFAULT, "config": to_plain(Config(latent_dim=10**9, hidden_dims=(10**9,)))},
    "another shape": {**DEFAULT, "config": to_plain(Config(latent_dim=3))},
    "another precision": {**DEFAULT, "model": {name: value.double() for name, value in DEFAULT["model"].items()}},
    "another format": {**DEFAULT, "format": checkpoint.FORMAT + 1},
    "list": [1, 2],
    "tensor": torch.zeros(3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_load_model_refuses_what_is_no_best_pt(tmp_path, name):
    path = tmp_path / "best.pt"
    torch.save(REFUSED[name], path)
    with pytest.raises(UserError) as refusal:
        checkpoint.load_model(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04"], ids=["empty", "text", "cut off"])
def test_load_model_refuses_what_torch_did_not_save(tmp_path, content):
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"best\.pt is damaged"):
        checkpoint.load_model(path)


@pytest.mark.parametrize("place", ["plain pickle", "saved by torch", "among the weights"])
def test_load_model_runs_no_code_from_file(tmp_path, place):
    path = tmp_path / "best.pt"
    hostile = Hostile(tmp_path / "hacked")
    if place == "plain pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif place == "saved by torch":
        torch.save(hostile, path)
    else:
        torch.save({**DEFAULT, "model": {**DEFAULT["model"], "encoder.0.weight": hostile}}, path)
    with pytest.raises(UserError, match=r"best\.pt"):
        checkpoint.load_model(path)
    assert not (tmp_path / "hacked").exists()


def test_load_model_names_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best\.pt"):
        checkpoint.load_model(tmp_path / "best.pt")


def test_input_dropout_hides_pixels_from_the_encoder_alone():
    torch.manual_seed(0)
    model = VAE(latent_dim=2, hidden_dims=(8,), input_dropout=0.25)
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    x = torch.rand(200, 784) + 0.5
    eps = torch.randn(200, 2)
    loss, _, z, _ = model.train()(x, eps)
    (given,) = seen
    hidden = given == 0
    assert hidden.double().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(given[~hidden], x[~hidden] / 0.75)
    torch.testing.assert_close(loss, bce(model.decode(z), x))
    model.eval()(x, eps)
    torch.testing.assert_close(seen[1], x)
