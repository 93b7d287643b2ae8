import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from errors import UserError
from model import MMD_SCALES, VAE, Mixture, StandardNormal, bce, kld, mmd

torch.manual_seed(0)
LOGITS, X = 4 * torch.randn(5, 784), torch.rand(5, 784)
MU, LOGVAR = torch.randn(5, 3), torch.randn(5, 3)


def test_bce_is_the_bernoulli_log_likelihood_of_each_image():
    expected = -Bernoulli(logits=LOGITS, validate_args=False).log_prob(X).sum(1)
    torch.testing.assert_close(bce(LOGITS, X), expected)


def test_kld_is_the_divergence_from_the_standard_normal():
    posterior = Normal(MU, torch.exp(0.5 * LOGVAR))
    torch.testing.assert_close(kld(MU, LOGVAR), kl_divergence(posterior, Normal(0.0, 1.0)).sum(1))
    assert kld(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_gradients_of_both_terms_agree_with_finite_differences():
    logits, x = LOGITS[:2, :20].double().requires_grad_(), X[:2, :20].double()
    assert torch.autograd.gradcheck(lambda a: bce(a, x), logits)
    assert torch.autograd.gradcheck(kld, (MU.double().requires_grad_(), LOGVAR.double().requires_grad_()))


def test_bce_is_exact_where_a_sigmoid_would_saturate():
    logits = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    loss = bce(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    loss.sum().backward()
    assert loss.item() == 2e4
    assert logits.grad.tolist() == [[0, 0, 1, -1]]


def test_reparameterize_is_differentiable_in_mu_and_sigma():
    mu, logvar, eps = MU.clone().requires_grad_(), LOGVAR.clone().requires_grad_(), torch.randn(5, 3)
    z = VAE(3).reparameterize(mu, logvar, eps)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(5, 3))
    torch.testing.assert_close(logvar.grad, 0.5 * torch.exp(0.5 * logvar.detach()) * eps)


def test_reparameterize_samples_the_posterior():
    z = VAE(1).reparameterize(torch.full((100_000, 1), 2.0), torch.full((100_000, 1), 2 * torch.log(torch.tensor(0.5))))
    assert abs(z.mean() - 2) < 0.01, z.mean()
    assert abs(z.std() - 0.5) < 0.01, z.std()


def test_gradient_of_the_bound_equals_that_of_its_textbook_form():
    model, eps = VAE(3, (20, 10)), torch.randn(5, 3)
    reconstruction_term, divergence, *_ = model(X, eps)
    ours = torch.autograd.grad((reconstruction_term + divergence).mean(), list(model.parameters()))
    mu, logvar = model.encode(X)
    logits = model.decode(mu + torch.exp(0.5 * logvar) * eps)
    reconstruction = F.binary_cross_entropy_with_logits(logits, X, reduction="sum")
    prior_fit = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum()
    textbook = torch.autograd.grad((reconstruction + prior_fit) / 5, list(model.parameters()))
    torch.testing.assert_close(ours, textbook, rtol=1e-4, atol=1e-6)


def test_a_mixtures_density_and_draws_are_those_of_torchs():
    prior = Mixture(3, 4)
    prior.logvar.data.normal_()
    sigma = torch.exp(0.5 * prior.logvar)
    theirs = MixtureSameFamily(Categorical(torch.ones(4)), Independent(Normal(prior.mu, sigma), 1))
    torch.testing.assert_close(prior.log_prob(MU), theirs.log_prob(MU))
    z = prior.sample(200_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), theirs.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), theirs.variance, atol=0, rtol=0.02)


def test_the_sampled_kl_has_the_closed_forms_mean():
    standard = Mixture(3, 1)
    standard.mu.data.zero_()
    mu, logvar = MU.repeat(100_000, 1), LOGVAR.repeat(100_000, 1)
    z = VAE(3).reparameterize(mu, logvar, torch.randn(mu.shape, generator=torch.Generator().manual_seed(0)))
    estimate = standard.kl(mu, logvar, z).view(-1, 5).mean(0)
    torch.testing.assert_close(estimate, StandardNormal(3).kl(MU, LOGVAR, None), rtol=0.01, atol=0.01)


def test_a_vampprior_is_the_mixture_of_its_pseudo_inputs_posteriors():
    model = VAE(3, (20,), prior="vamp", prior_components=4)
    mu, logvar = model.encode(model.prior.pseudo_inputs.sigmoid())
    theirs = MixtureSameFamily(Categorical(torch.ones(4)), Independent(Normal(mu, torch.exp(0.5 * logvar)), 1))
    torch.testing.assert_close(model.prior.log_prob(MU), theirs.log_prob(MU))


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_a_learned_prior_is_learned(prior):
    model = VAE(3, (20,), prior=prior, prior_components=4)
    sum(term.sum() for term in model(X, MU)[:2]).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.prior.parameters())


def test_mmd_is_that_of_the_kernel_summed_pair_by_pair():
    def k(a, b):
        return sum(6 * s / (6 * s + (a - b).square().sum()) for s in MMD_SCALES)

    z, other = MU, LOGVAR
    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(k(a[i], a[j]) for a in (z, other) for i, j in pairs if i != j) / 20
    expected = within - 2 * sum(k(z[i], other[j]) for i, j in pairs) / 25
    torch.testing.assert_close(mmd(z, other), expected)


def test_mmd_of_equal_distributions_is_zero_on_average_and_grows_with_their_distance():
    g = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 500, 2, generator=g) for _ in range(50)]
    values = torch.tensor([mmd(a, b) for a, b in draws])
    assert abs(values.mean()) < 3 * values.std() / 50**0.5, values.mean()
    distances = [mmd(draws[0][0], draws[0][1] + shift) for shift in (0, 0.5, 1, 2, 4)]
    assert distances == sorted(distances)


def test_a_wasserstein_encoder_is_deterministic():
    model = VAE(3, (20,), divergence="mmd")
    mu, logvar = model.encode(X)
    assert torch.equal(model.reparameterize(mu, logvar, MU), mu)
    reconstruction, divergence, z, _ = model(X, MU)
    assert torch.equal(z, mu) and torch.equal(reconstruction, bce(model.decode(mu), X))
    torch.testing.assert_close(divergence, mmd(mu, MU).expand(5))


def test_default_network_is_the_reviews():
    model = VAE()
    assert sum(p.numel() for p in model.parameters()) == 784 * 400 + 400 + 400 * 4 + 4 + 2 * 400 + 400 + 400 * 784 + 784
    assert [layer.out_features for layer in VAE(2, (30, 20)).decoder if hasattr(layer, "out_features")] == [20, 30, 784]
    assert [tuple(t.shape) for t in model(X, torch.zeros(5, 2))] == [(5,), (5,), (5, 2), (5, 2)]


def test_sample_is_images_that_follow_from_the_generator():
    model = VAE()
    images = model.sample(7, torch.Generator().manual_seed(3))
    assert images.shape == (7, 784) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, model.sample(7, torch.Generator().manual_seed(3)))


def test_load_returns_the_saved_model(tmp_path):
    model = VAE(3, (20, 10))
    torch.save({"network": model.network, "model": model.state_dict()}, tmp_path / "best.pt")
    loaded = VAE.load(tmp_path / "best.pt")
    assert not loaded.training
    assert torch.equal(loaded.encode(X)[0], model.encode(X)[0])


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("not a model"),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save({"model": {}}, path),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"network": {"latent_dim": 10**12}, "model": VAE().state_dict()}, path),
        lambda path: torch.save({"network": {"latent_dim": 3}, "model": VAE().state_dict()}, path),
        lambda path: path.write_bytes(pickle.dumps(Payload(str(path.with_name("hacked"))))),
        lambda path: torch.save({"network": Payload(str(path.with_name("hacked")))}, path),
    ],
    ids=["text", "empty", "no network", "a list", "huge", "another shape", "hostile pickle", "hostile archive"],
)
def test_load_refuses_what_is_not_a_best_pt(tmp_path, write):
    path = tmp_path / "best.pt"
    write(path)
    with pytest.raises(UserError, match=r"best\.pt"):
        VAE.load(path)
    assert not (tmp_path / "hacked").exists(), "code from the file was run"
