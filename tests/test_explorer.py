"""The page in real browsers."""

import json
import math
import shutil
import time

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from helpers import SMALL, call_main
from page import Page, need

import explorer
from benchmarks import browsers
from explorer.__main__ import main as write_page
from model import bce, log_normal
from support.data import datasets
from support.data.datasets import pixels
from support.latent import likelihood
from support.run import checkpoint
from support.seeds import generator

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request, tmp_path_factory):
    """A browser without a network."""
    need(request.param)
    with browsers.started(request.param, tmp_path_factory.mktemp(request.param)) as driver:
        yield Page(driver)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The folder of a run on scikit-learn's digits. Read only."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    flags = ("--dataset", "digits", "--hidden_dims", 32, "--lr", 0.01, "--epochs", 12)
    assert call_main(*flags, "--results_dir", folder).code == 0
    return folder


def narrow(folder, to, factor):
    """Copy a run, with the latent space and all sigmas a factor smaller: its decoder multiplies z by that.

    A factor for each latent, as a tensor, leaves the encoder alone.
    """
    shutil.copytree(folder, to, dirs_exist_ok=True)
    saved = torch.load(to / "best.pt")
    weights = saved["model"]
    weights["decoder.0.weight"] *= factor
    if not isinstance(factor, torch.Tensor):
        weights["encoder.2.weight"][:2] /= factor
        weights["encoder.2.bias"][:2] /= factor
        weights["encoder.2.bias"][2:] -= 2 * math.log(factor)
    torch.save(saved, to / "best.pt")
    assert write_page([str(to)]) == 0


@pytest.fixture
def page(browser, finished_run):
    """The page just opened. After the test its console must be empty, and nothing may have been asked of a network."""
    browser.open(finished_run.folder / "explorer.html")
    yield browser
    browser.check_silence()


def test_page_computes_what_pytorch_computes(page, finished_run, small_mnist):
    model = checkpoint.load_model(finished_run.folder / "best.pt")
    dataset = datasets.load("mnist", small_mnist)
    x = pixels(dataset.test_images[explorer.shown(dataset.test_labels.numpy())[:10]])
    z = 2 * torch.randn(10, 2, generator=generator(0))
    with torch.no_grad():
        images = model.decode(z).sigmoid()
        mu, logvar = model.encode(x)
        at_mu = bce(model.decode(mu), x)
    for i in range(10):
        decoded = page.evaluate("Array.from(explorer.decode(arguments[0]))", z[i].tolist())
        np.testing.assert_allclose(decoded, images[i], atol=2e-2)
        posterior = page.evaluate("explorer.encode(explorer.pixelsOf(arguments[0]))", i)
        np.testing.assert_allclose(posterior["mu"], mu[i], atol=1e-2)
        np.testing.assert_allclose(posterior["sigma"], torch.exp(0.5 * logvar[i]), atol=1e-2)
        log_p = page.evaluate(
            "explorer.logLikelihood(explorer.pixelsOf(arguments[0]), arguments[1])", i, posterior["mu"]
        )
        assert -log_p == pytest.approx(at_mu[i].item(), rel=1e-3)


def test_noise_in_canvases_changes_no_number(finished_run, small_mnist, tmp_path):
    """Firefox can answer with noise where a page reads a canvas back, as a protection against fingerprinting."""
    need("firefox")
    dataset = datasets.load("mnist", small_mnist)
    images = pixels(dataset.test_images[explorer.shown(dataset.test_labels.numpy())])
    with browsers.started("firefox", tmp_path, {"privacy.resistFingerprinting": True}) as driver:
        page = Page(driver)
        page.open(finished_run.folder / "explorer.html")
        read_back = "Array.from(document.getElementById('input').getContext('2d').getImageData(0, 0, 28, 28).data)"
        assert set(page.evaluate(read_back)[3::4]) != {255}, "the browser does not answer with noise"
        for i in range(3):
            found = page.evaluate("Array.from(explorer.pixelsOf(arguments[0]))", i)
            np.testing.assert_allclose(found, images[i], atol=1e-6)
        stroke = page.mouse().move_to_element_with_offset(page.element("pad"), -60, -40).click_and_hold()
        stroke.move_by_offset(0, 60).release().perform()
        page.wait_until("explorer.state.subject.index === null")
        drawing = np.array(page.evaluate("Array.from(explorer.state.subject.x)"))
        assert np.count_nonzero(drawing) < 200


def test_header_tells_the_best_epoch_and_its_losses(page, finished_run):
    row = checkpoint.best_of(checkpoint.load(finished_run.folder / "checkpoint.pt").history)
    losses = f"BCE {row['test_bce']:.2f} + KLD {row['test_divergence']:.2f} = {row['test_total']:.2f}"
    assert page.text("about").startswith(f"MNIST, best epoch {row['epoch']} of 3: {losses} nats per test image")


def test_hovering_decodes_z(page):
    before = page.evaluate("document.getElementById('decoded').toDataURL()")
    i = page.central_points()[5]
    page.mouse_at_point(i).perform()
    page.wait_until(f"document.getElementById('decoded').toDataURL() !== {json.dumps(before)}")
    z = page.state("z")
    np.testing.assert_allclose(z, page.evaluate("explorer.points[arguments[0]]", i), atol=0.03)
    assert page.text("z") == ", ".join(f"{value:.2f}" for value in z)
    density = np.exp(-0.5 * np.square(z).sum()) / (2 * np.pi)
    assert float(page.text("density")) == pytest.approx(density, rel=0.05)


def first_of(page):
    """The number of the image that the page shows first."""
    return page.evaluate("JSON.parse(document.getElementById('content').textContent).first")


def test_first_visit_shows_an_image_and_what_to_try(page):
    assert page.state("subject?.index") == first_of(page)
    page.wait_for_terms()
    assert "try this" in page.text("welcome")
    page.click("dismiss")
    assert not page.element("welcome").is_displayed()


def test_clicked_point_is_explained_and_clicked_ground_is_not(page):
    page.mouse_at_point(page.central_points()[5]).click().perform()
    assert page.state("subject?.index") is not None
    assert page.text("figures").startswith("class\n")
    page.wait_for_terms()
    assert float(page.text("value-kld")) == pytest.approx(page.state("terms.kld"), abs=0.01)
    page.mouse().move_to_element_with_offset(page.element("map"), -330, -250).click().perform()
    assert page.state("subject?.index") is None
    assert not page.element("told").is_displayed()
    assert page.text("value-kld") == "\u2013"
    assert not page.element("bar").is_displayed()


def test_double_click_zooms_and_keeps_what_is_explained(page):
    page.driver.execute_script("explorer.select(3)")
    half = page.state("view.half")
    page.mouse().move_to_element_with_offset(page.element("map"), -330, -250).double_click().perform()
    assert page.state("view.half") < half
    assert page.state("subject?.index") == 3


def test_disc_is_drawn_again_when_it_reappears_in_another_size(page):
    page.mouse().move_to_element_with_offset(page.element("map"), -330, -250).click().perform()
    page.resize(1300, 900)
    page.wait_until("document.getElementById('disc').width === 0")
    page.press("map", "ENTER")
    page.wait_until("document.getElementById('disc').width > 0")


def reference_terms(model, x, reach):
    """log p(x), BCE, KLD and gap of images x (N, 784), (N, 4), and the peak of p(z|x), (N, 2), by fine lattices.

    The lattice of z goes from -reach to reach in steps of reach / 120, and that of q(z|x) to 6 sigma.
    """
    axis = torch.linspace(-1, 1, 241)
    lattice = torch.cartesian_prod(axis, axis)
    z = reach * lattice
    eps = 6 * lattice[lattice.norm(dim=1) < 1][::4]
    weights = torch.softmax(log_normal(eps, torch.zeros(2), torch.zeros(2)), 0)
    rows, peaks = [], []
    with torch.no_grad():
        logits = model.decode(z)
        log_z = model.prior.log_prob(z) - torch.nn.functional.softplus(logits).sum(1)
        mu, logvar = model.encode(x)
        for i in range(len(x)):
            log_joint = (logits @ x[i] + log_z).double()
            log_p = log_joint.logsumexp(0) + 2 * math.log(reach / 120)
            peaks.append(z[log_joint.argmax()])
            nodes = model.reparameterize(mu[i], logvar[i], eps)
            expected_bce = weights @ bce(model.decode(nodes), x[i].expand(len(nodes), -1))
            kld = weights @ (log_normal(nodes, mu[i], logvar[i]) - model.prior.log_prob(nodes))
            rows.append([log_p, expected_bce, kld, log_p + expected_bce + kld])
    return np.array(rows, dtype=float), torch.stack(peaks).numpy()


@pytest.mark.parametrize("narrowing", [1, 4])
def test_equation_and_heat_map_agree_with_pytorch(browser, digits_run, tmp_path, narrowing):
    """With all sigmas as trained, and with narrower ones."""
    narrow(digits_run, tmp_path, narrowing)
    model = checkpoint.load_model(tmp_path / "best.pt")
    dataset = datasets.load("digits", None)
    x = pixels(dataset.test_images[explorer.shown(dataset.test_labels.numpy())[:10]])
    terms, peaks = reference_terms(model, x, 6 / narrowing)
    browser.open(tmp_path / "explorer.html")
    for i in range(10):
        browser.driver.execute_script("explorer.select(arguments[0])", i)
        browser.wait_for_terms()
        found = browser.evaluate("Object.values(explorer.state.terms)")
        np.testing.assert_allclose(found, terms[i], atol=0.05)
        assert found[3] >= -0.01
        cells = browser.evaluate("explorer.state.posterior.cells.map(({ z, side, log }) => [...z, side, log])")
        cells = np.array(cells)
        assert np.sum(np.exp(cells[:, 3] - terms[i, 0]) * cells[:, 2] ** 2) == pytest.approx(1, abs=0.05)
        assert np.abs(cells[cells[:, 3].argmax(), :2] - peaks[i]).max() < 0.1 / narrowing
    browser.driver.execute_script("for (const button of document.querySelectorAll('#legend button')) button.click()")
    browser.press("map", "c")
    red, _, blue = browser.map_color(peaks[-1].tolist())
    assert red > blue + 40, "the heat map is orange around its peak"
    browser.check_silence()


def halved_model(folder):
    """The model in a run's best.pt with the weights that the page has: as float16."""
    model = checkpoint.load_model(folder / "best.pt")
    with torch.no_grad():
        for parameter in explorer.network(model):
            parameter.copy_(parameter.half())
    return model


def write_photos(folder, classes, each):
    """Write grey waves as images of so many classes, and return the folder."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28] / 28
    for label in range(classes):
        (folder / f"class {label:02d}").mkdir(parents=True)
        for i in range(each):
            a, b = rng.uniform(2, 9, 2)
            waves = 127 + 60 * np.sin(a * columns + label) + 50 * np.cos(b * rows) + rng.normal(0, 10, (28, 28))
            imageio.imwrite(folder / f"class {label:02d}" / f"{i:03d}.png", waves.clip(0, 255).astype(np.uint8))
    return folder


UNUSUAL = {  # runs by their flags; photos stands for a folder of so many classes and images of each
    "one class": ("photos", 1, 120, "--epochs", 4),
    "twenty classes": ("photos", 20, 7, "--epochs", 4, "--batch_size", 16),
    "one class, weight 1e-3": (
        "photos",
        1,
        120,
        "--epochs",
        8,
        "--lr",
        4e-3,
        "--batch_size",
        16,
        "--divergence_weight",
        1e-3,
    ),
    "weight 1e-3": ("--epochs", 8, "--divergence_weight", 1e-3),
    "weight 0.01": ("--epochs", 8, "--divergence_weight", 0.01),
    "MMD": ("--epochs", 4, "--divergence", "mmd"),
    "mixture": ("--epochs", 4, "--prior", "mixture"),
    "VampPrior": ("--epochs", 4, "--prior", "vamp"),
    "one epoch": ("--epochs", 1),
    "one hidden unit": ("--epochs", 4, "--hidden_dims", 1),
    "1024-512-256": ("--epochs", 1, "--hidden_dims", 1024, 512, 256),
}


@pytest.fixture(scope="module", params=UNUSUAL)
def unusual_run(request, tmp_path_factory):
    """The folder of an unusual run, and its dataset. Read only."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("unusual")
    flags = UNUSUAL[request.param]
    dataset = "digits"
    if flags[0] == "photos":
        dataset = str(write_photos(folder / "photos", *flags[1:3]))
        flags = flags[3:]
    done = call_main("--dataset", dataset, *flags, "--results_dir", folder / "results")
    assert done.code == 0, done.err
    return folder / "results", datasets.load(dataset, None)


def test_numbers_of_an_unusual_run_are_those_of_pytorch(browser, unusual_run):
    """The page's quadrature against the program's; and the gap, a KL divergence, is not negative."""
    folder, dataset = unusual_run
    model = halved_model(folder)
    images = dataset.test_images[explorer.shown(dataset.test_labels.numpy())[:4]]
    log_p = likelihood.quadrature(model, images)
    axis = torch.linspace(-6, 6, 121)
    eps = torch.cartesian_prod(axis, axis)
    weights = torch.softmax(log_normal(eps, torch.zeros(2), torch.zeros(2)), 0)
    browser.open(folder / "explorer.html")
    for i, x in enumerate(pixels(images)):
        browser.driver.execute_script("explorer.select(arguments[0])", i)
        browser.wait_for_terms()
        terms = browser.state("terms")
        assert terms["evidence"] == pytest.approx(log_p[i].item(), abs=0.05)
        with torch.no_grad():
            mu, logvar = model.encode(x)
            if logvar is None:
                assert set(terms) == {"evidence"}
                continue
            z = model.reparameterize(mu, logvar, eps)
            expected_bce = weights @ bce(model.decode(z), x.expand(len(z), -1))
            kld = weights @ (log_normal(z, mu, logvar) - model.prior.log_prob(z))
        assert terms["bce"] == pytest.approx(expected_bce.item(), abs=0.05)
        assert terms["kld"] == pytest.approx(kld.item(), abs=0.05)
        assert terms["gap"] >= -0.01
    center, half = browser.state("view.center"), browser.state("view.half")
    inside = np.abs(np.subtract(browser.evaluate("explorer.points"), center)).max(1) < half
    assert inside.mean() > 0.95, "the whole map shows where the points are"
    browser.check_silence()


def test_posterior_that_the_page_cannot_resolve_has_no_number(browser, digits_run, tmp_path):
    """With a decoder that depends on one latent 100,000 times as much, p(z|x) is a long and narrow ridge."""
    narrow(digits_run, tmp_path, torch.tensor([1e5, 1]))
    browser.open(tmp_path / "explorer.html")
    browser.wait_for_terms()
    assert browser.text("value-evidence") == browser.text("value-gap") == "\u2013"
    assert browser.text("unresolved").startswith("The posterior of this image is too narrow")
    assert not browser.element("bar").is_displayed()


def test_map_opens_close_to_the_first_image(page):
    page.driver.refresh()
    page.wait_until("window.explorer && explorer.state.subject !== null")
    assert page.state("view.center") == page.state("subject.q.mu")
    half = page.state("view.half")
    page.click("reset")
    assert page.state("view.half") > 1.5 * half


def test_drawing_is_centred_and_explained(page):
    page.wait_for_terms()
    stroke = page.mouse().move_to_element_with_offset(page.element("pad"), -60, -40).click_and_hold()
    stroke.move_by_offset(40, 0).move_by_offset(0, 60).release().perform()
    page.wait_until("explorer.state.subject.index === null")
    ink = 255 * np.reshape(page.evaluate("Array.from(explorer.state.subject.x)"), (28, 28))
    rows, columns = np.nonzero(ink > 12)
    assert max(np.ptp(rows), np.ptp(columns)) == 19, "it fills a box of 20 x 20 pixels"
    assert (ink.sum(1) @ np.arange(28)) / ink.sum() == pytest.approx(13.5, abs=0.6)
    assert (ink.sum(0) @ np.arange(28)) / ink.sum() == pytest.approx(13.5, abs=0.6)
    before = page.state("posterior.cells.map(({ log }) => log)")
    page.wait_for_terms()
    assert page.text("figures").startswith("class\nyour drawing")
    page.mouse().move_to_element_with_offset(page.element("pad"), -60, 60).click().perform()
    page.wait_until("explorer.state.terms === null")
    assert page.state("posterior.cells.map(({ log }) => log)") != before
    page.click("clear")
    assert page.state("subject") is None
    assert page.state("posterior") is None


def test_disc_moves_z(page):
    page.wait_for_terms()
    before = page.evaluate("document.getElementById('sampled').toDataURL()")
    disc = page.element("disc")
    page.mouse().move_to_element(disc).click_and_hold().move_by_offset(30, -20).release().perform()
    page.wait_for_frame()
    epsilon = np.array(page.state("epsilon"))
    unit = disc.size["width"] / 2 / 3.2
    np.testing.assert_allclose(epsilon, [30 / unit, 20 / unit], atol=2 / unit)  # pixels are rounded
    q = page.state("subject.q")
    z = q["mu"] + np.array(q["sigma"]) * epsilon
    np.testing.assert_allclose([float(value) for value in page.text("sample").split(", ")], z, atol=0.006)
    assert page.evaluate("document.getElementById('sampled').toDataURL()") != before
    page.click("resample")
    assert np.shape(page.state("draws")) == (10, 2)
    page.wait_for_frame()
    assert page.element("draws").is_displayed()


def test_keyboard_reaches_terms_disc_and_close_up(page):
    page.wait_for_terms()
    reached = []
    while "resample" not in reached:
        page.press_anywhere("TAB")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.term"))
        assert len(reached) < 60
        if reached[-1] in ("evidence", "bce", "kld", "gap"):
            assert page.state("term") == reached[-1]
            assert page.text("term-hint") != ""
    missing = {"dismiss", "map", "close-up", "evidence", "bce", "kld", "gap", "disc", "draw-one"} - set(reached)
    assert missing == set()
    assert page.state("term") is None
    page.press("disc", "0", "ARROW_RIGHT", "ARROW_UP", "ARROW_UP")
    np.testing.assert_allclose(page.state("epsilon"), [0.1, 0.2])
    page.press("disc", "ENTER")
    assert page.state("epsilon") != [0.1, 0.2]
    half = page.state("view.half")
    page.press("map", "c")
    assert page.state("view.half") != half


def test_term_is_highlighted_while_the_mouse_points_at_it(page):
    page.wait_for_terms()
    corner = [2.5, 0.5]  # no posterior is there, but the prior is
    page.mouse().move_to_element(page.driver.find_element("css selector", "[data-term=kld]")).perform()
    red, green, _ = page.map_color(corner)
    assert green > red
    assert "prior" in page.text("term-hint")
    page.mouse().move_to_element(page.element("about")).perform()
    assert page.state("term") is None


def test_click_on_a_term_keeps_it_until_the_next_click(page):
    page.wait_for_terms()
    gap, bce_button = (page.driver.find_element("css selector", f"[data-term={name}]") for name in ("gap", "bce"))
    gap.click()
    page.mouse().move_to_element(page.element("about")).perform()
    assert page.state("term") == "gap"
    assert [button.get_attribute("aria-pressed") for button in (gap, bce_button)] == ["true", "false"]
    page.mouse().move_to_element(bce_button).perform()
    assert page.state("term") == "bce"
    page.mouse().move_to_element(page.element("about")).perform()
    assert page.state("term") == "gap"
    gap.click()
    page.mouse().move_to_element(page.element("about")).perform()
    assert page.state("term") is None


def test_tap_on_a_term_keeps_it_wherever_the_focus_is(page):
    page.wait_for_terms()
    for _ in range(2):
        for name in ("bce", "gap"):
            page.tap(page.driver.find_element("css selector", f"[data-term={name}]"))
            assert page.state("term") == name
    page.tap(page.driver.find_element("css selector", "[data-term=gap]"))
    assert page.state("term") is None


def test_terms_are_named_with_their_numbers_and_spoken_in_a_sentence(page):
    page.wait_for_terms()
    page.wait_until("document.getElementById('spoken').textContent.startsWith('log p(x) is ')")
    button = page.driver.find_element("css selector", "[data-term=kld]")
    assert button.accessible_name == f"KLD {page.text('value-kld')}"
    assert len(page.driver.find_elements("css selector", "[aria-live], output, [role=status]")) == 1


def test_film_plays_to_its_end_and_the_map_says_whose_points_it_shows(page, finished_run):
    page.press("epoch", "HOME")
    assert page.text("epoch-number").startswith("epoch 1")
    assert page.text("film-title").startswith(f"MNIST, {'best ' * page.evaluate('isBestShown()')}epoch 1: BCE ")
    assert page.state("frame") == 0
    page.click("play")
    page.wait_until("explorer.state.frame === 2")
    page.wait_until("document.getElementById('play').textContent === 'Play'")
    assert page.text("epoch-number").startswith("epoch 3")
    best = checkpoint.best_of(checkpoint.load(finished_run.folder / "checkpoint.pt").history)["epoch"]
    page.press("epoch", "HOME" if best > 1 else "END")
    assert page.text("epoch-note").startswith(f"The dots are those of epoch {1 if best > 1 else 3}.")
    assert not page.element("map-key").is_displayed()
    page.click("to-best")
    assert page.evaluate("isBestShown()")
    assert not page.element("epoch-note").is_displayed()
    assert page.element("map-key").is_displayed()


@pytest.mark.parametrize("control", ["map", "disc", "bce"])
def test_explaining_x_returns_the_film_to_the_best_epoch(page, finished_run, control):
    page.wait_for_terms()
    best = checkpoint.best_of(checkpoint.load(finished_run.folder / "checkpoint.pt").history)["epoch"]
    page.press("epoch", "HOME" if best > 1 else "END")
    assert page.text("epoch-number") != f"epoch {best}, best"
    if control == "bce":
        page.driver.find_element("css selector", "[data-term=bce]").click()
    else:
        page.press(control, "ENTER" if control == "map" else "ARROW_UP")
    assert page.text("epoch-number") == f"epoch {best}, best"


def test_reload_and_return_leave_no_field_that_disagrees_with_the_page(page, finished_run):
    for leave in ("reload", "return"):
        page.click("backdrop")
        page.press("epoch", "HOME")
        if leave == "reload":
            page.driver.refresh()
        else:
            page.driver.get("about:blank")
            page.driver.back()
        page.wait_until("window.explorer && explorer.state.terms !== null")
        assert page.element("backdrop").is_selected() == page.state("backdrop")
        frame = page.state("frame")
        assert int(page.evaluate("document.getElementById('epoch').value")) == frame
        page.open(finished_run.folder / "explorer.html")


def test_epsilon_stays_in_the_disc(page):
    page.wait_for_terms()
    page.mouse().move_to_element(page.element("disc")).click_and_hold().move_by_offset(300, 0).release().perform()
    assert np.linalg.norm(page.state("epsilon")) == pytest.approx(2.9)
    page.press("disc", *["ARROW_RIGHT"] * 3)
    assert np.linalg.norm(page.state("epsilon")) == pytest.approx(2.9)


def test_page_that_was_opened_in_a_hidden_frame_is_drawn_when_it_is_shown(browser, finished_run, tmp_path):
    shutil.copy(finished_run.folder / "explorer.html", tmp_path)
    frame = '<iframe src="explorer.html" style="display: none; width: 1300px; height: 800px; border: 0"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html>{frame}")
    browser.resize(1440, 900)
    browsers.emulate(browser.driver)
    browser.driver.get((tmp_path / "frame.html").as_uri())
    time.sleep(1)
    browser.driver.execute_script("document.querySelector('iframe').style.display = 'block'")
    browser.driver.switch_to.frame(0)
    browser.wait_for_terms()
    browser.wait_for_frame()
    assert browser.state("theme.ink") == "#1d2530"
    assert min(browser.state("size")) > 100
    browser.driver.switch_to.default_content()
    shot = imageio.imread(browser.driver.get_screenshot_as_png(), extension=".png")[..., :3]
    assert np.median(shot) > 200


def test_map_is_drawn_again_when_the_screens_pixels_change(page):
    width = page.evaluate("document.getElementById('map').width")
    page.resize(1440, 900, 2)
    page.wait_until(f"document.getElementById('map').width === {2 * width}")


def test_arrow_keys_take_the_map_along(page):
    page.press("map", "0", *["ARROW_RIGHT"] * 60)
    x = page.evaluate("explorer.toScreen(explorer.state.z)")[0]
    assert 0 < x < page.element("map").size["width"]
    assert page.state("view.center")[0] > page.evaluate("explorer.homeView().center[0]")


def test_wheel_zooms_beside_other_content_and_scrolls_the_page_where_the_map_is_alone(page):
    half = page.state("view.half")

    def roll():
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        origin = ScrollOrigin.from_element(page.element("map"))
        page.mouse().scroll_from_origin(origin, 0, -60).perform()
        page.wait_for_frame()

    roll()
    assert page.state("view.half") < half
    page.resize(600, 700)
    half = page.state("view.half")
    roll()
    assert page.state("view.half") == half


def test_map_stays_in_sight_on_a_phone(page):
    page.resize(390, 844)
    for name in ("pad", "disc", "play"):
        page.driver.execute_script("document.getElementById(arguments[0]).scrollIntoView({ block: 'end' })", name)
        corner = page.evaluate("document.getElementById('map').getBoundingClientRect()")
        assert corner["top"] >= 0
        assert corner["bottom"] < 500
        element = page.evaluate("document.getElementById(arguments[0]).getBoundingClientRect()", name)
        assert element["top"] > corner["bottom"]


def test_guided_path_moves_the_map_and_tells_what_the_bound_leaves_out(browser, digits_run):
    page = browser
    page.open(digits_run / "explorer.html")
    page.wait_for_terms()
    page.click("start-tour")
    titles, views, terms, heats = [], [], [], []
    for _ in range(5):
        page.wait_for_rest()
        titles.append(page.text("tour-title"))
        views.append(page.state("view"))
        terms.append(page.state("term"))
        heats.append(page.element("heat-key").is_displayed())
        if len(titles) == 5:
            page.wait_until("explorer.state.split !== null")
        last = page.text("tour-text")
        page.click("tour-next")
    assert [title.split(": ")[1] for title in titles] == ["encode", "sample", "decode", "bound", "gap"]
    assert titles[0] == "Step 1 of 5: encode"
    assert terms == [None, None, "bce", "kld", "gap"]
    assert heats == [False, False, True, True, True]  # the posterior is not shown before it is explained
    assert views[0] != views[1] != views[2] != views[4]
    assert f"the gap is {page.text('value-gap')} nats" in last
    assert f"by {page.text('approximation')} nats: approximation" in last
    assert f"costs {page.text('amortisation')} nats: amortisation" in last
    assert page.state("tour") is None
    assert page.state("term") is None
    page.check_silence()


def test_guided_path_can_be_left_at_any_time_and_taken_again(page):
    page.wait_for_terms()
    page.click("dismiss")
    for leave in ("tour-leave", "ESCAPE"):
        page.click("start-tour")
        page.click("tour-next")
        page.click("tour-next")
        if leave == "ESCAPE":
            page.press_anywhere("ESCAPE")
        else:
            page.click(leave)
        assert not page.element("tour").is_displayed()
        assert page.state("term") is None


def test_gap_is_split_by_a_better_gaussian(browser, digits_run):
    """The best Gaussian's bound, taken anew in PyTorch, is higher than the encoder's by the amortisation gap."""
    browser.open(digits_run / "explorer.html")
    model = halved_model(digits_run)
    dataset = datasets.load("digits", None)
    x = pixels(dataset.test_images[explorer.shown(dataset.test_labels.numpy())[:3]])
    axis = torch.linspace(-6, 6, 121)
    eps = torch.cartesian_prod(axis, axis)
    weights = torch.softmax(log_normal(eps, torch.zeros(2), torch.zeros(2)), 0)
    for i in range(3):
        browser.driver.execute_script("explorer.select(arguments[0])", i)
        browser.wait_until("explorer.state.split !== null")
        split, terms = browser.state("split"), browser.state("terms")
        assert split["approximation"] + split["amortisation"] == pytest.approx(terms["gap"])
        assert split["approximation"] >= -0.01
        assert split["amortisation"] >= 0
        mu, sigma = (torch.tensor(split["q"][name]) for name in ("mu", "sigma"))
        z = mu + sigma * eps
        with torch.no_grad():
            log_joint = model.prior.log_prob(z) - bce(model.decode(z), x[i].expand(len(z), -1))
        elbo = weights @ (log_joint - log_normal(z, mu, 2 * sigma.log()))
        assert elbo.item() == pytest.approx(terms["evidence"] - split["approximation"], abs=0.05)


def test_pixels_of_the_bce_picture_sum_to_the_bce_at_z(page):
    page.wait_for_terms()
    page.wait_for_frame()
    q = page.state("subject.q")
    z = (np.array(q["mu"]) + np.multiply(q["sigma"], page.state("epsilon"))).tolist()
    found = page.evaluate("-explorer.logLikelihood(explorer.state.subject.x, arguments[0])", z)
    assert float(page.text("pixel-sum")) == pytest.approx(found, abs=0.02)


def test_network_shows_the_values_of_each_layer(page):
    page.wait_for_terms()
    page.driver.find_element("css selector", "#network summary").click()
    page.wait_until("document.querySelectorAll('#layers li').length > 0")
    rows = page.text("layers")
    assert rows.count("16 units") == 2
    mu = page.state("subject.q.mu")
    assert f"{mu[0]:.2f}, {mu[1]:.2f} and " in rows
    assert "mu + torch.exp(0.5 * logvar) * eps" in rows


def test_link_restores_the_state(page):
    page.wait_for_terms()
    page.driver.execute_script("explorer.select(7)")
    page.press("map", "+", "+", "ARROW_UP")
    page.driver.execute_script("explorer.state.epsilon = [3.1, 0.5]")  # a draw may lie outside the disc
    page.driver.find_elements("css selector", "#legend button")[3].click()
    page.driver.find_element("css selector", "[data-term=gap]").click()
    page.click("link")
    address = page.driver.current_url
    page.wait_until("explorer.state.split !== null")  # Firefox complains of a page that is left at work
    shown = "(({ view, epsilon }) => [...view.center, view.half, ...epsilon])(explorer.state)"
    expected = page.evaluate(shown)
    page.driver.get("about:blank")
    page.driver.get(address)
    page.wait_for_terms()
    np.testing.assert_allclose(page.evaluate(shown), expected, atol=1e-3)
    assert page.state("subject.index") == 7
    assert page.state("term") == "gap"
    assert page.evaluate("[...explorer.state.hidden]") == [3]


def test_link_to_the_view_changes_nothing_on_the_page(page):
    page.wait_for_terms()
    page.click("start-tour")
    page.wait_for_rest()
    page.wait_for_terms()
    page.driver.execute_script("explorer.same = explorer.state.terms; explorer.draws = explorer.state.draws")
    page.click("link")
    page.wait_until("location.hash.includes('step=1')")
    page.wait_for_frame()
    assert page.evaluate("explorer.same === explorer.state.terms && explorer.draws === explorer.state.draws")
    assert "leads to what it shows" in page.text("spoken")


def test_link_with_classes_that_do_not_exist_hides_none(page, finished_run):
    page.driver.get("about:blank")
    page.driver.get(f"{(finished_run.folder / 'explorer.html').as_uri()}#hidden=abc,99,-1")
    page.wait_for_terms()
    assert page.evaluate("explorer.state.hidden.size") == 0


def test_posterior_waits_until_the_whole_lattice_is_decoded(page):
    """A second walk over a lattice that grows would count its rings twice."""
    page.wait_for_terms()
    page.driver.execute_script("explorer.state.isDecoded = false; explorer.state.terms = null; explorer.select(5)")
    page.wait_for_rest()
    assert page.state("terms") is None
    assert page.state("posterior") is None


def test_header_of_a_continued_run_has_the_weight_of_the_best_epoch(browser, run_main, tmp_path, no_drawing):
    assert run_main(tmp_path, *SMALL, "--epochs", 1).code == 0
    assert run_main(tmp_path, "--resume", "--epochs", 2, "--divergence_weight", 1e6).code == 0
    browser.open(tmp_path / "explorer.html")
    best = checkpoint.best_of(checkpoint.load(tmp_path / "checkpoint.pt").history)
    assert best["epoch"] == 1
    assert f"BCE {best['test_bce']:.2f} + KLD {best['test_divergence']:.2f} = " in browser.text("about")


@pytest.mark.parametrize(
    "fragment", ["image=999&view=a,b,c&term=__proto__&frame=-1&step=9&epsilon=1", "%", "<img src=x>"]
)
def test_link_that_makes_no_sense_changes_nothing(page, finished_run, fragment):
    page.driver.get("about:blank")
    page.driver.get(f"{(finished_run.folder / 'explorer.html').as_uri()}#{fragment}")
    page.wait_for_terms()
    assert page.state("subject.index") == first_of(page)
    assert page.state("term") is None
    assert page.state("tour") is None


def test_browser_without_decompression_is_told_so(page, finished_run):
    if page.driver.name == "firefox":
        pytest.skip("it has no way to take a function from the page before its scripts run")
    added = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    page.driver.get((finished_run.folder / "explorer.html").as_uri())
    page.wait_until("!document.getElementById('too-old').hidden")
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    page.forget()


def test_legend_hides_and_shows_a_class(page):
    page.press("map", "ENTER")
    nearest = page.state("subject?.index")
    label = page.evaluate("JSON.parse(document.getElementById('content').textContent).labels[arguments[0]]", nearest)
    button = page.driver.find_elements("css selector", "#legend button")[label]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.press("map", "ENTER")
    assert not page.text("figures").startswith(f"class\n{label}\n")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    page.press("map", "ENTER")
    assert page.state("subject?.index") == nearest


def test_keyboard_moves_zooms_selects_and_interpolates(page):
    page.wait_for_terms()  # they are spoken, too
    half = page.state("view.half")
    page.press("map", "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_UP")
    z = page.state("z")
    assert z[0] > z[1] > 0
    assert page.text("spoken").startswith("z = ")
    page.press("map", "+")
    assert page.state("view.half") < half
    page.press("map", "0")
    assert page.state("view.half") == half
    page.press("map", "ENTER")
    assert page.state("subject?.index") is not None
    page.press("map", "i", *["ARROW_DOWN"] * 6, "i")
    assert page.element("save").get_attribute("href").startswith("data:image/png;base64,")


def test_mouse_zooms_pans_and_interpolates(page):
    half = page.state("view.half")
    page.click("zoom-in")
    assert page.state("view.half") == pytest.approx(half / 1.5)
    center = page.evaluate("explorer.homeView().center")
    page.mouse().drag_and_drop_by_offset(page.element("map"), 50, 20).perform()
    x, y = np.subtract(page.state("view.center"), center)
    assert x < -0.1
    assert y > 0.04
    page.click("reset")
    assert page.state("view.center") == center
    page.click("backdrop")
    assert not page.state("backdrop")
    page.click("interpolate")
    selected = page.state("subject?.index")
    for i in page.central_points()[:2]:
        page.mouse_at_point(i).click().perform()
    assert len(page.state("ends")) == 2
    assert page.state("subject?.index") == selected
    assert page.element("strip").is_displayed()


def test_one_finger_decodes_and_two_zoom(page):
    rect = page.element("map").rect
    x = rect["x"] + rect["width"] / 2
    y = rect["y"] + rect["height"] / 2

    def touch(*paths):
        page.touch(*[[(x + dx, y + dy) for dx, dy in path] for path in paths])

    half = page.state("view.half")
    touch([(0, 0), (60, -40)])
    page.wait_until("explorer.state.z[0] > 0.2")
    assert page.state("z")[1] > 0.1
    assert page.state("view.center") == page.evaluate("explorer.homeView().center")
    touch([(-50, 0), (-100, 0)], [(50, 0), (100, 0)])
    page.wait_until(f"explorer.state.view.half < {0.7 * half}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "size",
    [(320, 640), (390, 844), (768, 1024), (1024, 768), (1600, 1000)],
    ids=["320", "phone", "768", "1024", "wide"],
)
def test_page_fits_the_screen_in_its_colour_scheme(page, size, scheme):
    page.resize(*size)
    browsers.emulate(page.driver, scheme)
    check_fit(page, size[0])
    assert page.element("map").size["width"] > 0.45 * size[0]
    assert page.element("map").size["height"] < 0.8 * size[1]
    shot = imageio.imread(page.driver.get_screenshot_as_png(), extension=".png")[..., :3]
    assert shot.shape[:2] == size[::-1]
    assert shot.std() > 5, "the screenshot is blank"
    assert (np.median(shot) > 128) == (scheme == "light")


def check_fit(page, width):
    """Assert that nothing is wider than the window, or than the card it is in."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for card in page.driver.find_elements("css selector", ".card"):
        assert page.evaluate("arguments[0].scrollWidth <= arguments[0].clientWidth", card)


def test_class_names_stand_in_legend_and_figures(browser, small_mnist, tmp_path):
    shutil.copytree(small_mnist / "MNIST", tmp_path / "FashionMNIST")
    flags = ("--data_dir", tmp_path, "--dataset", "fashion_mnist", *SMALL, "--epochs", 1)
    assert call_main(*flags, "--results_dir", tmp_path / "results").code == 0
    browser.open(tmp_path / "results" / "explorer.html")
    browser.resize(390, 844)
    check_fit(browser, 390)
    names = browser.text("legend").splitlines()
    assert names[0] == "T-shirt"
    assert names[9] == "Ankle boot"
    browser.press("map", "ENTER")
    assert browser.text("figures").splitlines()[1] in names
    browser.check_silence()


@pytest.mark.parametrize("flags", [("--prior", "mixture"), ("--prior", "vamp"), ("--divergence", "mmd")])
def test_page_of_a_variant_shows_its_prior_and_terms(browser, run_main, tmp_path, flags):
    assert run_main(tmp_path, *SMALL, "--hidden_dims", 16, 8, "--epochs", 1, *flags).code == 0
    browser.open(tmp_path / "explorer.html")
    z = [0.3, -0.2]
    expected = checkpoint.load_model(tmp_path / "best.pt").prior.log_prob(torch.tensor([z])).exp().item()
    assert np.exp(browser.evaluate("explorer.logPrior(arguments[0])", z)) == pytest.approx(expected, rel=0.01)
    browser.press("map", "ENTER")
    browser.wait_for_terms()
    is_deterministic = "mmd" in flags
    assert browser.element("bound").is_displayed() != is_deterministic
    assert browser.element("noise").is_displayed() != is_deterministic
    assert ("no bound" in browser.text("term-hint")) == is_deterministic
    assert ("ELBO" in browser.text("equation-title")) != is_deterministic
    assert browser.element("welcome").is_displayed() != is_deterministic
    assert browser.text("value-evidence") != "\u2013"
    assert is_deterministic or browser.state("terms.gap") >= -0.01
    browser.check_silence()
