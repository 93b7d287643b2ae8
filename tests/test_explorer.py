"""The page in a real browser; REQUIRE_BROWSER=1 makes its absence a failure."""

import contextlib
import json
import os
import shutil
import time

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import contents
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import data
import explorer
import main
from explorer.__main__ import main as write_page
from model import VAE

FLAGS = ("--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def run(small_mnist, tmp_path_factory):
    """The results directory of three epochs on the small MNIST."""
    folder = tmp_path_factory.mktemp("explorer")
    with contextlib.redirect_stdout(None):
        assert main.main(["--data_dir", str(small_mnist), "--epochs", "3", "--results_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a network."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        assert not os.environ.get("REQUIRE_BROWSER"), "chromium and chromedriver are not installed"
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, run):
    """The page just opened; afterwards the console must be empty, and nothing may have been asked of a network."""
    resized(browser, 1440, 900)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")
    browser.get_log("performance")  # forgets what Chromium's own first page asked for
    browser.get((run / "explorer.html").as_uri())
    until(browser, "document.documentElement.dataset.ready !== undefined")
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:")) for url in asked), asked


def resized(browser, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def until(browser, condition):
    """Wait until a JavaScript expression is true; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not browser.execute_script(f"return {condition}"):
        assert time.monotonic() < deadline, f"never true: {condition}"
        time.sleep(0.02)


def state(page, expression):
    return page.execute_script(f"return explorer.{expression}")


def central(page):
    """The points' numbers, from the middle of the map outwards."""
    return np.linalg.norm(state(page, "points"), axis=1).argsort().tolist()


def at_point(page, i):
    """A mouse moved to a point of the map, as actions to go on with."""
    x, y = state(page, f"toScreen(explorer.points[{i}])")
    element = page.find_element(By.ID, "map")
    size = element.size
    return ActionChains(page, 20).move_to_element_with_offset(element, x - size["width"] / 2, y - size["height"] / 2)


def text(page, name):
    return page.find_element(By.ID, name).text


def click(page, name):
    page.find_element(By.ID, name).click()


def test_it_computes_what_pytorch_computes(page, run, small_mnist):
    model, dataset = VAE.load(run / "best.pt"), data.load("mnist", small_mnist)
    rows = explorer.shown(dataset.test_labels.numpy())[:10]
    z = 2 * torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels, (mu, logvar) = model.decode(z).sigmoid(), model.encode(data.pixels(dataset.test_images[rows]))
        bce, kld, *_ = model(data.pixels(dataset.test_images[rows]), torch.zeros(10, 2))
    for i in range(10):
        decoded = page.execute_script("return Array.from(explorer.decode(arguments[0]))", z[i].tolist())
        np.testing.assert_allclose(decoded, pixels[i], atol=2e-2)
        posterior = state(page, f"encode(explorer.pixelsOf({i}))")
        np.testing.assert_allclose(posterior["mu"], mu[i], atol=1e-2)
        np.testing.assert_allclose(posterior["sigma"], torch.exp(0.5 * logvar[i]), atol=1e-2)
        assert state(page, f"kld(explorer.encode(explorer.pixelsOf({i})))") == pytest.approx(kld[i].item(), abs=0.02)
        x_and_mu = f"explorer.pixelsOf({i}), explorer.encode(explorer.pixelsOf({i})).mu"
        assert state(page, f"bce({x_and_mu})") == pytest.approx(bce[i].item(), rel=1e-3)


def test_hovering_decodes(page):
    before = page.execute_script("return document.getElementById('decoded').toDataURL()")
    i = central(page)[5]
    at_point(page, i).perform()
    until(page, f"document.getElementById('decoded').toDataURL() !== {json.dumps(before)}")
    np.testing.assert_allclose(state(page, "state.z"), state(page, f"points[{i}]"), atol=0.03)
    assert text(page, "z") == ", ".join(f"{value:.2f}" for value in state(page, "state.z"))
    density = np.exp(-0.5 * np.square(state(page, "state.z")).sum()) / (2 * np.pi)
    assert float(text(page, "density")) == pytest.approx(density, rel=0.05)


def test_a_clicked_point_tells_its_story(page):
    page.find_element(By.ID, "epoch").send_keys(Keys.HOME)
    page.find_element(By.ID, "map").send_keys(Keys.ENTER)
    assert text(page, "epoch-number").startswith("epoch 3"), "the story is the best epoch's, and so is the map"
    at_point(page, central(page)[5]).click().perform()
    chosen = state(page, "state.selected")
    assert chosen is not None and text(page, "figures").startswith("class\n")
    assert all(word in text(page, "figures") for word in ("BCE at", "KLD", "+ KLD", "nats"))
    ActionChains(page, 20).move_to_element_with_offset(page.find_element(By.ID, "map"), -330, -330).click().perform()
    assert state(page, "state.selected") is None


def test_what_is_drawn_is_centred_and_encoded(page):
    pad = page.find_element(By.ID, "pad")
    stroke = ActionChains(page, 20).move_to_element_with_offset(pad, -60, -40).click_and_hold()
    stroke.move_by_offset(40, 0).move_by_offset(0, 60).release().perform()
    until(page, "explorer.state.drawn !== null")
    image = page.execute_script(
        "return Array.from(document.getElementById('centred').getContext('2d').getImageData(0, 0, 28, 28).data)"
    )
    ink = 255 - np.array(image).reshape(28, 28, 4)[..., 0]
    rows, columns = np.nonzero(ink > 12)
    assert max(np.ptp(rows), np.ptp(columns)) == 19, "it fills a box of 20 x 20"
    assert (ink.sum(1) @ np.arange(28)) / ink.sum() == pytest.approx(13.5, abs=0.6)
    assert (ink.sum(0) @ np.arange(28)) / ink.sum() == pytest.approx(13.5, abs=0.6)
    assert "KLD" in text(page, "drawn")
    click(page, "clear")
    assert state(page, "state.drawn") is None


def test_the_film_plays(page):
    assert text(page, "epoch-number").startswith("epoch 3")
    page.find_element(By.ID, "epoch").send_keys(Keys.HOME)
    assert text(page, "epoch-number").startswith("epoch 1") and state(page, "state.frame") == 0
    click(page, "play")
    until(page, "explorer.state.frame === 2")
    until(page, "document.getElementById('play').textContent === 'Play'")


def test_the_legend_hides_a_class(page):
    page.find_element(By.ID, "map").send_keys(Keys.ENTER)
    nearest = state(page, "state.selected")
    label = page.execute_script("return JSON.parse(document.getElementById('content').textContent).labels")[nearest]
    button = page.find_element(By.CSS_SELECTOR, f"[aria-label='Class {label}']")
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and state(page, f"state.hidden.has({label})")
    page.find_element(By.ID, "map").send_keys(Keys.ENTER)
    assert f"class\n{label}" not in text(page, "figures")
    button.click()
    page.find_element(By.ID, "map").send_keys(Keys.ENTER)
    assert state(page, "state.selected") == nearest


def test_the_keyboard_moves_zooms_picks_and_interpolates(page):
    element, half = page.find_element(By.ID, "map"), state(page, "state.view.half")
    element.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    z = state(page, "state.z")
    assert z[0] > z[1] > 0 and text(page, "spoken").startswith("z ")
    element.send_keys("+")
    assert state(page, "state.view.half") < half
    element.send_keys("0")
    assert state(page, "state.view.half") == half
    element.send_keys(Keys.ENTER)
    assert state(page, "state.selected") is not None
    element.send_keys("i", *6 * [Keys.ARROW_DOWN], "i")
    assert page.find_element(By.ID, "save").get_attribute("href").startswith("data:image/png;base64,")


def test_zoom_pan_backdrop_and_interpolation_by_mouse(page):
    half = state(page, "state.view.half")
    click(page, "zoom-in")
    assert state(page, "state.view.half") == pytest.approx(half / 1.5)
    ActionChains(page, 20).drag_and_drop_by_offset(page.find_element(By.ID, "map"), 50, 20).perform()
    assert state(page, "state.view.center")[0] < -0.1 and state(page, "state.view.center")[1] > 0.04
    click(page, "reset")
    assert state(page, "state.view.center") == [0, 0]
    click(page, "backdrop")
    assert not state(page, "state.backdrop")
    click(page, "interpolate")
    for i in central(page)[:2]:
        at_point(page, i).click().perform()
    assert len(state(page, "state.ends")) == 2 and state(page, "state.selected") is None
    assert page.find_element(By.ID, "strip").is_displayed()


def test_a_finger_decodes_and_two_zoom(page):
    element, half = page.find_element(By.ID, "map"), state(page, "state.view.half")
    centre = {axis: element.rect[axis] + element.rect[side] / 2 for axis, side in (("x", "width"), ("y", "height"))}

    def touch(kind, *offsets):
        points = [{"x": centre["x"] + dx, "y": centre["y"] + dy, "id": i} for i, (dx, dy) in enumerate(offsets)]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0, 0))
    touch("touchMove", (60, -40))
    until(page, "explorer.state.z[0] > 0.2")
    assert state(page, "state.z[1]") > 0.1 and state(page, "state.view.center") == [0, 0]
    touch("touchEnd")
    touch("touchStart", (-50, 0), (50, 0))
    touch("touchMove", (-100, 0), (100, 0))
    touch("touchEnd")
    until(page, f"explorer.state.view.half < {0.7 * half}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1600, 1000)], ids=["phone", "wide"])
def test_it_fits_a_screen(page, size, scheme):
    resized(page, *size)
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
    assert page.find_element(By.ID, "map").size["width"] > 0.45 * size[0]
    for card in page.find_elements(By.CSS_SELECTOR, ".card"):
        assert page.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", card)
    shot = imageio.imread(page.get_screenshot_as_png(), extension=".png")[..., :3]
    assert shot.shape[:2] == size[::-1] and shot.std() > 5, "the screenshot is blank"
    assert (np.median(shot) > 128) == (scheme == "light")


def test_the_command_writes_the_same_page_again(run, capsys):
    before = (run / "explorer.html").read_bytes()
    assert write_page([str(run)]) == 0 and str(run / "explorer.html") in capsys.readouterr().out
    assert (run / "explorer.html").read_bytes() == before


@pytest.mark.parametrize("flags", [("--prior", "vamp"), ("--divergence", "mmd", "--divergence_weight", "10")])
def test_the_page_of_another_prior_or_divergence(browser, small_mnist, tmp_path, flags):
    argv = ["--data_dir", str(small_mnist), "--hidden_dims", "16", "8", "--epochs", "1", "--results_dir", str(tmp_path)]
    with contextlib.redirect_stdout(None):
        assert main.main([*argv, *flags]) == 0
    browser.get((tmp_path / "explorer.html").as_uri())
    until(browser, "document.documentElement.dataset.ready !== undefined")
    z = [0.3, -0.2]
    expected = VAE.load(tmp_path / "best.pt").prior.log_prob(torch.tensor([z])).exp().item()
    assert browser.execute_script("return explorer.priorDensity(arguments[0])", z) == pytest.approx(expected, rel=0.01)
    browser.find_element(By.ID, "map").send_keys(Keys.ENTER)
    assert ("KLD" in text(browser, "figures")) == ("mmd" not in flags)
    assert browser.get_log("browser") == []


def test_three_latent_dimensions_have_no_page(small_mnist, tmp_path, capsys):
    argv = ["--data_dir", str(small_mnist), "--hidden_dims", "16", "--epochs", "1", "--results_dir", str(tmp_path)]
    assert main.main([*argv, "--latent_dim", "3"]) == 0
    assert "needs two latent dimensions" in capsys.readouterr().out and not (tmp_path / "explorer.html").exists()
    assert write_page([str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "--latent_dim 2" in errors


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no run"),
        (lambda folder: (folder / "config.json").write_text("{"), "does not hold a run"),
        (lambda folder: (folder / "config.json").write_text("[]"), "does not hold a run"),
        (lambda folder: (folder / "checkpoint.pt").write_bytes(b"x"), "checkpoint.pt is damaged"),
        (lambda folder: (folder / "best.pt").unlink(), "best.pt"),
        (lambda folder: (folder / "latent" / "epoch_002.npy").write_bytes(b"x"), "epoch_002.npy is damaged"),
        (lambda folder: break_header(folder / "latent" / "epoch_002.npy"), "epoch_002.npy is damaged"),
        (lambda folder: (folder / "config.json").write_text("[" * 200_000), "does not hold a run"),
        (lambda folder: save_another_network(folder / "best.pt"), "another network"),
        (lambda folder: save_doubles(folder / "best.pt"), "is not a best.pt"),
    ],
    ids=[
        *("no directory", "no JSON", "a list", "no checkpoint", "no best.pt", "damaged means", "a damaged header"),
        *("deep JSON", "another network", "float64"),
    ],
)
def test_what_is_no_run_is_refused_in_a_line(run, tmp_path, capsys, damage, words):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    damage(folder)
    before = contents(folder)
    assert write_page([str(folder)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and words in errors, errors
    assert contents(folder) == before


def break_header(path):
    path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))


def save_doubles(path):
    saved = torch.load(path)
    torch.save({**saved, "model": {name: value.double() for name, value in saved["model"].items()}}, path)


def save_another_network(path):
    model = VAE(2, (7,))
    torch.save({"network": model.network, "model": model.state_dict()}, path)


def test_as_many_digits_of_each_class_are_shown():
    labels = np.random.default_rng(1).integers(0, 10, 10_000)
    rows = explorer.shown(labels)
    assert np.bincount(labels[rows]).tolist() == 10 * [200] and len(set(rows)) == 2000
    assert np.bincount(labels[explorer.shown(labels[:300])]).max() <= 30


@pytest.mark.parametrize("n", [1, 99, 100, 101, 1000])
def test_a_long_film_keeps_first_best_and_last(n):
    history = [{"epoch": epoch, "test_total": abs(epoch - 57)} for epoch in range(1, n + 1)]
    epochs = explorer.film_epochs([epoch["epoch"] for epoch in history], history)
    assert len(epochs) <= 100 and epochs == sorted(set(epochs)) and {1, min(57, n), n} <= set(epochs)
