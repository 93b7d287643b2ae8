"""Learned priors and the Wasserstein auto-encoder."""

import pytest
import torch
from helpers import SMALL, assert_same_training, metrics
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import pictures
import train
import variants
from model import VAE, StandardNormal, bce
from support.data.datasets import pixels
from support.errors import UserError
from support.run.config import Config
from support.seeds import EVALUATION_SEED, generator
from variants.priors import Mixture, VampPrior
from variants.wae import SCALES, WAE, mmd

SOURCE = generator(0)
X = torch.rand(5, 784, generator=SOURCE)
Z = torch.randn(5, 3, generator=SOURCE)
OTHER = torch.randn(5, 3, generator=SOURCE)


def mixture_of(mu, logvar):
    """torch's equally weighted mixture of Gaussians (K, latent_dim)."""
    components = Independent(Normal(mu, torch.exp(0.5 * logvar)), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mu))), components)


def random_mixture():
    torch.manual_seed(0)
    prior = Mixture(3, 4)
    prior.logvar.data.normal_()
    return prior


def build(**flags):
    torch.manual_seed(0)
    return variants.build_model(Config(latent_dim=3, hidden_dims=(20,), prior_components=4, **flags))


def test_density_of_mixture_is_torchs():
    prior = random_mixture()
    torch.testing.assert_close(prior.log_prob(Z), mixture_of(prior.mu, prior.logvar).log_prob(Z))


@torch.no_grad()
def test_draws_of_mixture_have_its_moments():
    prior = random_mixture()
    expected = mixture_of(prior.mu, prior.logvar)
    z = prior.sample(100_000, generator(1))
    torch.testing.assert_close(z.mean(0), expected.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), expected.variance, atol=0, rtol=0.03)


@torch.no_grad()
def test_sampled_kl_has_mean_of_closed_form():
    prior = Mixture(3, 1)
    prior.mu.zero_()  # the only component is N(0, I)
    mu = Z.repeat(50_000, 1)
    logvar = OTHER.repeat(50_000, 1)
    z = VAE(3).reparameterize(mu, logvar, torch.randn(mu.shape, generator=generator(1)))
    estimate = prior.kl(mu, logvar, z).view(-1, 5).mean(0)
    torch.testing.assert_close(estimate, StandardNormal(3).kl(Z, OTHER, None), rtol=0.01, atol=0.02)


def test_vampprior_is_mixture_of_posteriors_of_pseudo_inputs():
    model = build(prior="vamp")
    assert isinstance(model.prior, VampPrior)
    mu, logvar = model.encode(model.prior.pseudo_inputs.sigmoid())
    torch.testing.assert_close(model.prior.log_prob(Z), mixture_of(mu, logvar).log_prob(Z))


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_learned_prior_gets_gradients(prior):
    model = build(prior=prior)
    reconstruction, divergence, *_ = model(X, Z)
    (reconstruction + divergence).sum().backward()
    parameters = list(model.prior.parameters())
    assert parameters
    assert all(parameter.grad.abs().sum() > 0 for parameter in parameters)


def test_priors_leave_network_weights_of_seed_alone():
    weights = [build(prior=prior).encoder[0].weight for prior in ("normal", "mixture", "vamp")]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_mmd_is_kernel_summed_pair_by_pair():
    def kernel(a, b):
        return sum(6 * scale / (6 * scale + (a - b).square().sum()) for scale in SCALES)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(kernel(points[i], points[j]) for points in (Z, OTHER) for i, j in pairs if i != j) / 20
    between = sum(kernel(Z[i], OTHER[j]) for i, j in pairs) / 25
    torch.testing.assert_close(mmd(Z, OTHER), within - 2 * between)


def test_mmd_is_zero_for_equal_distributions_and_grows_with_distance():
    draws = torch.randn(50, 2, 300, 2, generator=generator(1))
    values = torch.stack([mmd(*pair) for pair in draws])
    assert abs(values.mean()) < 3 * values.std() / len(draws) ** 0.5
    z, other = draws[0]
    distances = [mmd(z, other + shift).item() for shift in (0, 0.5, 1, 2, 4)]
    assert distances == sorted(distances)


def test_gradient_of_mmd_agrees_with_finite_differences():
    assert torch.autograd.gradcheck(lambda z: mmd(z, OTHER.double()), Z.double().requires_grad_())


def test_wae_encodes_without_noise_and_spreads_its_mmd_over_the_batch():
    model = build(divergence="mmd")
    assert isinstance(model, WAE)
    code, logvar = model.encode(X)
    assert logvar is None
    reconstruction, divergence, z, mu = model(X, Z)
    assert torch.equal(z, code)
    assert torch.equal(mu, code)
    torch.testing.assert_close(reconstruction, bce(model.decode(code), X))
    torch.testing.assert_close(divergence, mmd(code, Z).expand(5))


@pytest.mark.parametrize(("batch_size", "processes"), [(1, 1), (23, 1), (64, 2)])
def test_batches_without_mmd_are_refused(batch_size, processes):
    """Of 300 images, the last of batches of 23 is alone; and a process sees a part of a batch only."""
    with pytest.raises(UserError):
        variants.check_mmd(Config(divergence="mmd", batch_size=batch_size), 300, processes)
    variants.check_mmd(Config(batch_size=batch_size), 300, processes)


def test_reported_mmd_has_no_part_of_a_single_image():
    model = build(divergence="mmd")
    images = (Z.new_zeros(501, 784).uniform_(generator=generator(0)) * 255).byte()
    divergence = train.evaluate(model, images).divergence
    eps = torch.randn(501, model.latent_dim, generator=generator(EVALUATION_SEED))
    first, second = (mmd(model.encode(pixels(images[half]))[0], eps[half]) for half in (slice(251), slice(251, None)))
    assert divergence == pytest.approx((251 * first.item() + 250 * second.item()) / 501, rel=1e-5)


def test_mmd_of_a_single_training_image_is_refused():
    with pytest.raises(UserError, match="add images"):
        variants.check_mmd(Config(divergence="mmd"), 1, 1)


VARIANTS = {
    "mixture": ("--prior", "mixture", "--prior_components", 3),
    "vamp": ("--prior", "vamp", "--prior_components", 3, "--latent_dim", 3),
    "mmd": ("--divergence", "mmd", "--divergence_weight", 10, "--latent_dim", 3),
}


@pytest.mark.parametrize("prior", pictures.PRIORS)
def test_run_with_any_prior_draws_all_its_pictures(run_main, tmp_path, prior):
    done = run_main(tmp_path, *SMALL, "--epochs", 1, "--prior", prior)
    assert (done.code, done.err) == (0, "")
    assert "====> Best epoch" in done.out


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_run_of_variant_continued_equals_undisturbed_run(run_main, tmp_path, no_drawing, name):
    flags = (*SMALL, *VARIANTS[name])
    undisturbed = run_main(tmp_path / "undisturbed", *flags, "--epochs", 2)
    assert undisturbed.code == 0, undisturbed.err
    for epochs in (1, 2):
        assert run_main(tmp_path / "results", *flags, "--epochs", epochs).code == 0
    assert_same_training(tmp_path / "undisturbed", tmp_path / "results")
    weight = 10 if name == "mmd" else 1
    label = "MMD" if name == "mmd" else "KLD"
    assert f"{label}_Loss: " in undisturbed.out
    for row in metrics(tmp_path / "results"):
        assert (row["test_kld"] == "") == (name == "mmd")
        total = float(row["test_bce"]) + weight * float(row["test_divergence"])
        assert float(row["test_total"]) == pytest.approx(total, abs=0.002)
