"""The explorer's page, in a real browser: its numbers are PyTorch's, and everything does something.

The tests marked `browser` need Chromium, chromedriver and selenium, and are skipped without.
"""

import json
import math
import os
import re
import shutil
import time

import pytest
import torch
from conftest import finished_run, refused, succeed
from torch import nn

from codebase import ROOT, UserError
from codebase import utils as ut
from codebase.explorer import explore, export
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.models.laplace_vae import LaplaceVAE
from codebase.models.likelihoods import Gaussian
from codebase.project import weights_file

MAKE = {
    "vae": lambda: VAE(z_dim=12),
    "gmvae": lambda: GMVAE(z_dim=3, k=20),
    "one component": lambda: GMVAE(z_dim=2, k=1),
    "laplace": lambda: LaplaceVAE(z_dim=4),
    "plane": lambda: VAE(nn="v3", z_dim=2, likelihood=Gaussian(0.392, torch.sigmoid)),
    "ssvae": SSVAE,
    "fsvae": FSVAE,
}
RELATIVE = 1e-4
INTERPOLATED = "#encode > div:last-child canvas"


def made(kind: str) -> nn.Module:
    """A model with weights of some size, so that nothing about it is nearly constant."""
    torch.manual_seed(3)
    model = MAKE[kind]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("dec", "enc")) and name.endswith("weight"):
                parameter.mul_(1.7)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,900"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def wait(condition, seconds: float = 60):
    """Until a condition is truthy: its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page does not get there"
        time.sleep(0.02)
    return value


def asked(browser, expression: str, *arguments):
    """The value of an expression of JavaScript, in which a, b, … are the arguments."""
    names = ", ".join("abcdef"[: len(arguments)])
    plain = (
        "(v) => JSON.parse(JSON.stringify(v, (k, one) => ArrayBuffer.isView(one) ? [...one] : one))"
    )
    script = f"return (async ({names}) => ({plain})(await ({expression})))(...arguments)"
    return browser.execute_script(script, *arguments)


def close(found, wanted: torch.Tensor) -> bool:
    found = torch.tensor(found, dtype=torch.float64).flatten()
    wanted = wanted.double().flatten()
    return (found - wanted).abs().max() <= RELATIVE * wanted.abs().max()


def click(browser, selector: str) -> None:
    browser.execute_script(f"document.querySelector({selector!r}).click()")


def text_of(browser, selector: str) -> str:
    return browser.find_element("css selector", selector).text


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.browser
def test_the_page_of_a_model(browser, tmp_path, kind):
    """Every part of one page, opened once: starting a page takes longer than asking it."""
    model = export.in_half_precision(made(kind))
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(30, model.enc.x_dim, generator=generator) ** 3
    images = export.Images(x, torch.arange(30) % 10, "test image")
    path = tmp_path / "page.html"
    export.write(path, model, "a <run>", "about it", images, (images.x, images.y))
    browser.get_log("performance")
    browser.get(path.as_uri())
    wait(lambda: asked(browser, "window.explorer?.state.values.estimate != null"))
    assert text_of(browser, "h1") == "a <run>"
    numbers_are_pytorchs(browser, model)
    estimates_are_the_bounds(browser, model, kind)
    parts_do_something(browser, model, kind)
    requests = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert browser.get_log("browser") == []


def numbers_are_pytorchs(browser, model) -> None:
    """The page's numbers for a new image are PyTorch's; a weight has every density in it."""
    generator = torch.Generator().manual_seed(8)
    x = model.likelihood.observe(torch.rand(1, model.enc.x_dim, generator=generator) ** 2)
    label, given = None, ()
    if model.y_dim:
        label, given = 7, (torch.eye(10)[[7]],)
    m, v = model.enc.encode(x, *given)
    browser.execute_script(
        "window.m = explorer.model; window.x = arguments[0]; window.y = arguments[1];"
        "window.q = m.encode(x, y);",
        *(x[0].tolist(), label),
    )
    h = model.dec.decode(m, *given)
    assert close(asked(browser, "m.mean(m.decode(q.m, y))"), model.likelihood.mean(h))
    closed = asked(browser, "m.klOfDimensions(q)")
    kl_to_prior = getattr(model, "kl_to_prior", lambda z, m, v: ut.kl_normal(m, v, *model.z_prior))
    kl = asked(browser, "m.klAt(q.m, q)") if closed is None else math.fsum(closed)
    assert close(kl, kl_to_prior(m, m, v))
    assert asked(browser, "explorer.difference") < RELATIVE
    shown = asked(browser, "explorer.difference.toExponential(1)")
    assert f"{shown}." in text_of(browser, "#difference")

    w, z = asked(browser, WEIGHT)
    z, joint = torch.tensor([z]), 0
    if hasattr(model, "cls"):
        log_q = nn.functional.log_softmax(model.cls.classify(x), -1)
        assert close(asked(browser, "m.classify(x)"), log_q)
        y = int((log_q.exp().cumsum(-1) <= 0.3).sum())
        given, joint = (torch.eye(10)[[y]],), -math.log(10) - log_q[0, y]
    m, v = model.enc.encode(x, *given)
    log_p_z = getattr(model, "log_p_z", lambda z: ut.log_normal(z, *model.z_prior))(z)
    log_q_z = getattr(model, "log_q", ut.log_normal)(z, m, v)
    log_p_x = model.likelihood.log_prob(x, model.dec.decode(z, *given))
    assert close(w, log_p_x + log_p_z - log_q_z + joint)

    weights = torch.randn(60, generator=generator)
    for size in (1, 7):
        bounds = -ut.log_mean_exp(weights[: 60 // size * size].view(-1, size), 1)
        found = asked(browser, "explorer.iwae(Float64Array.from(a), b)", weights.tolist(), size)
        assert close(found["mean"], bounds.mean()) and close(found["deviation"], bounds.std())
    ess = weights.exp().sum() ** 2 / weights.exp().square().sum()
    expression = "explorer.effectiveSampleSize(Float64Array.from(a))"
    assert close(asked(browser, expression, weights.tolist()), ess)


# The logarithm of an importance weight, and the z that it is of.
WEIGHT = """(() => {
    let z;
    const spy = Object.create(m);
    spy.drawPosterior = (q, random) => (z = m.drawPosterior(q, random));
    return [spy.logWeight(x, m.posterior(x, y), () => 0.3), z];
})()"""


def estimates_are_the_bounds(browser, model, kind) -> None:
    """The bound of the chosen image beside the model's own draws; 1000 weights and their curve."""
    torch.manual_seed(0)
    wait(lambda: asked(browser, "explorer.state.values.estimate.draws") >= 200)
    wait(lambda: asked(browser, "explorer.tightening.count") >= 1000)
    wait(lambda: browser.find_elements("css selector", "#tighten polyline"))
    x = torch.tensor([asked(browser, "explorer.state.values.x")]).float()
    label = asked(browser, "explorer.state.values.label")
    given = (torch.eye(10)[[label]],) if kind == "fsvae" else ()
    draws = [model.negative_elbo_bound(x, *given) for _ in range(300)]
    draws = torch.tensor([[term.item() for term in terms] for terms in draws]).double()
    order = "nelbo kl kly rec draws" if kind == "ssvae" else "nelbo kl rec draws"
    read = [f"explorer.state.values.estimate.{name}" for name in order.split()]
    *terms, count = asked(browser, f"[{', '.join(read)}]")
    error = draws.std(0) * math.sqrt(1 / 300 + 1 / count)
    least = RELATIVE * draws.mean(0).abs() + 1e-6  # of float32, where KL_y cancels
    assert ((draws.mean(0) - torch.tensor(terms)).abs() <= 5 * error + least).all(), (draws, terms)
    assert re.fullmatch(r"−?\d+\.\d\d", text_of(browser, '#encode [data-number="nelbo"]'))


def parts_do_something(browser, model, kind) -> None:
    from selenium.webdriver import ActionChains, Keys

    def pixels(selector: str) -> str:
        return asked(browser, f"document.querySelector({selector!r}).toDataURL()")

    def changes(act, selector: str) -> None:
        before = pixels(selector)
        act()
        wait(lambda: pixels(selector) != before)

    def seen_from(canvas):
        middle = "{block: 'center', behavior: 'instant'}"
        browser.execute_script(f"arguments[0].scrollIntoView({middle})", canvas)
        return ActionChains(browser, duration=10)

    decoded, seen = "#decode canvas.large", "#encode figure canvas"
    sliders = browser.find_elements("css selector", "#decode input[type=range]")
    assert len(sliders) == min(model.z_dim, 10)
    for key in (Keys.ARROW_RIGHT, Keys.HOME, Keys.END):
        changes(lambda key=key: sliders[0].send_keys(key), decoded)
    changes(lambda: click(browser, "#draw-z"), decoded)
    changes(lambda: click(browser, "input[name=image][value='4']"), seen)
    assert "test image 5: a 4" in text_of(browser, "#encode figcaption")
    changes(lambda: browser.find_element("id", "interpolate").send_keys(Keys.END), INTERPOLATED)
    # A digit drawn with the mouse, and then one with keys.
    pad, means = browser.find_element("id", "pad"), asked(browser, "explorer.state.values.z")
    strokes = seen_from(pad).move_to_element_with_offset(pad, -40, -60).click_and_hold()
    strokes.move_by_offset(60, 10).move_by_offset(-30, 90).release().perform()
    wait(lambda: "your drawing" in text_of(browser, "#encode figcaption"))
    x = torch.tensor(asked(browser, "explorer.state.values.x"), dtype=torch.float32)
    assert x.shape == (model.enc.x_dim,) and 0 < x.mean() < 0.5
    assert not model.likelihood.binary or set(x.tolist()) == {0, 1}
    assert asked(browser, "explorer.state.values.z") != means
    changes(lambda: pad.send_keys(Keys.SPACE, *[Keys.ARROW_UP] * 5, Keys.SPACE), seen)
    if model.y_dim:
        changes(lambda: click(browser, "#decode [data-class='3']"), decoded)
        assert asked(browser, "explorer.state.values.y") == 3
        assert len(browser.find_elements("css selector", "#labels .row canvas")) == 10
    if kind == "ssvae":
        cells = browser.find_elements("css selector", "#label-terms tbody tr td:nth-of-type(2)")
        shares = [float(cell.text) for cell in cells]
        assert len(shares) == 10 and math.fsum(shares) == pytest.approx(1, abs=1e-3)
    if kind == "gmvae":
        browser.find_element("css selector", "#decode input[type=number]").send_keys("7")
        changes(lambda: click(browser, "#draw-z"), decoded)
        assert "component 7 of 20" in text_of(browser, "#decode")
    if kind == "plane":
        planes = browser.find_elements("css selector", "canvas.plane")
        drag = seen_from(planes[0]).move_to_element(planes[0]).click_and_hold()
        changes(lambda: drag.move_by_offset(50, -30).release().perform(), decoded)
        first, second = asked(browser, "explorer.state.values.z")
        assert first > 0.1 and second > 0.1
        changes(lambda: planes[1].send_keys(Keys.ARROW_DOWN), decoded)
        assert asked(browser, "explorer.state.values.z")[1] < second
    # Every number's name shows its formula, and hides it again.
    names = browser.find_elements("css selector", "button.name")
    assert len(names) > 8
    for name in (names[0], names[-1]):
        place = browser.find_element("id", name.get_attribute("aria-controls"))
        for shown in (True, False):
            browser.execute_script("arguments[0].click()", name)
            assert bool(place.text) == place.is_displayed() == shown


# Without a browser


def page_of(path):
    return json.loads(re.search(r'id="page">(.*?)</script>', path.read_text(encoding="utf-8"))[1])


@pytest.mark.parametrize("kind", MAKE)
def test_a_page_without_a_data_set_has_samples(tmp_path, kind):
    export.write(tmp_path / "page.html", made(kind), "a run", "about it")
    page = page_of(tmp_path / "page.html")
    assert page["images"]["source"] == "sample of the model" and page["images"]["count"] == 10
    assert len(page["checks"]) == 3 and page["plane"] is None


def test_weights_are_halved_if_no_bound_shows_it(tmp_path):
    torch.manual_seed(0)
    model = FSVAE()
    export.write(tmp_path / "page.html", model, "", "")
    layer = page_of(tmp_path / "page.html")["networks"]["dec"][0]
    assert layer["weight"]["tensor"][0] == "float16"
    assert (tmp_path / "page.html").stat().st_size < 10.5e6
    with torch.no_grad():
        model.dec.net[4].bias += 1000.3  # halves are 0.5 apart there
    assert export.in_half_precision(model) is model


def test_what_the_page_cannot_compute_is_refused(tmp_path):
    unknown = made("vae")
    unknown.enc.net[1] = nn.Tanh()
    for model in (unknown, VAE(likelihood=Gaussian(0.1, torch.tanh))):
        with pytest.raises(UserError, match="the page knows no"):
            export.write(tmp_path / "page.html", model, "", "")
    assert list(tmp_path.iterdir()) == []


def test_the_command(folders):
    """Your last run or, if there is none, the reference weights; data are not downloaded."""
    assert "does not exist" in refused(folders, "codebase", "explore")
    kept = ROOT / "checkpoints" / "reference" / explore.DEFAULT
    shutil.copytree(kept, folders / "checkpoints" / "reference" / explore.DEFAULT)
    page = folders / "own" / "page.html"
    command = ("codebase", "explore", "--out", page, "--data_dir", folders / "data")
    stdout, stderr = succeed(folders, *command)
    assert stdout.splitlines()[-1] == f"Page: {page}"
    assert f"<title>{explore.DEFAULT}</title>" in page.read_text(encoding="utf-8")
    for number, seconds in ((1, 1000), (2, 2000), (3, 500)):
        run = finished_run("run_vae.py", 5, run=number, data="mnist")
        os.utime(weights_file(run.folder, 5), (seconds, seconds))
    stdout, stderr = succeed(folders, *command)
    assert "Run: model=vae_z=10_run=0002, iteration 5" in stderr
    assert "samples take the place of images" in stderr and not (folders / "data").exists()
    assert "nosuch does not exist" in refused(folders, "codebase", "explore", "nosuch")


def test_its_place_in_the_project():
    """Only the command line knows of the explorer."""
    knows = [
        path.relative_to(ROOT / "codebase").as_posix()
        for path in (ROOT / "codebase").rglob("*.py")
        if "codebase.explorer" in path.read_text(encoding="utf-8") and "explorer" not in path.parts
    ]
    assert knows == ["__main__.py"]
