"""The explorer's page, in a real browser: its numbers are PyTorch's, and everything does something.

These tests need Chromium, chromedriver and selenium, and are skipped if one is missing. Screenshots
go to pytest's cache, .pytest_cache/d/screenshots.
"""

import base64
import json
import math
import os
import re
import shutil
import time
from types import SimpleNamespace

import pytest
import tiny
import torch
from conftest import finished_run, refused, succeed
from torch import nn

import run_vae
from codebase import ROOT, UserError, data, figures, load_run
from codebase import utils as ut
from codebase.datasets.download import MNIST_MD5
from codebase.explorer import explore, export
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.models.laplace_vae import LaplaceVAE
from codebase.models.likelihoods import Gaussian
from codebase.project import weights_file
from codebase.runs.run import Run

MAKE = {
    "vae": lambda: VAE(z_dim=12),
    "gmvae": lambda: GMVAE(z_dim=3, k=20),
    "one component": lambda: GMVAE(z_dim=2, k=1),
    "laplace": lambda: LaplaceVAE(z_dim=4),
    "plane": lambda: VAE(nn="v3", z_dim=2, likelihood=Gaussian(0.392, torch.sigmoid)),
    "ssvae": SSVAE,
    "fsvae": FSVAE,
}
HOSTILE = "</script><script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'>"
RELATIVE = 1e-4


def made(kind: str) -> nn.Module:
    """A model with weights of some size, so that nothing about it is nearly constant."""
    torch.manual_seed(3)
    model = MAKE[kind]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("dec", "enc")) and name.endswith("weight"):
                parameter.mul_(1.7)
    return model.eval().requires_grad_(False)


def images_for(model: nn.Module, count: int = 30) -> export.Images:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(count, model.enc.x_dim, generator=generator) ** 3
    return export.Images(x, torch.arange(count) % 10, "test image")


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


def open_page(browser, path) -> None:
    browser.get_log("performance")
    browser.get(path.as_uri())
    wait(lambda: browser.execute_script("return window.explorer?.state.values.estimate != null"))


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


def pixels(browser, selector: str) -> str:
    return browser.execute_script(f"return document.querySelector({selector!r}).toDataURL()")


def close(found, wanted: torch.Tensor) -> bool:
    found = torch.tensor(found, dtype=torch.float64).flatten()
    wanted = wanted.double().flatten()
    return (found - wanted).abs().max() <= RELATIVE * wanted.abs().max()


def click(browser, selector: str) -> None:
    browser.execute_script(f"document.querySelector({selector!r}).click()")


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.browser
def test_the_page_of_a_model(browser, tmp_path, kind, pytestconfig):
    """Every part of one page, opened once: starting a page takes longer than asking it."""
    model = export.in_half_precision(made(kind))
    images = images_for(model)
    path = tmp_path / "page.html"
    export.write(path, model, HOSTILE, f"about {HOSTILE}", images, (images.x, images.y))
    open_page(browser, path)
    heading = browser.find_element("css selector", "h1").text
    assert heading == HOSTILE and asked(browser, "window.harmed ?? 0") == 0
    numbers_are_pytorchs(browser, model)
    estimates_are_the_bounds(browser, model, kind)
    parts_do_something(browser, model, kind)
    for name, width, scheme in (("wide-light", 1200, "light"), ("narrow-dark", 390, "dark")):
        folder = pytestconfig.cache.mkdir("screenshots")
        screenshot(browser, folder / f"{kind}-{name}.png", width, scheme)
        assert asked(browser, "document.documentElement.scrollWidth") <= width
    requests = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert browser.get_log("browser") == []
    assert asked(browser, BLOCKED) is True
    browser.get_log("browser")


# Whether the page's own policy stops what is not in its file.
BLOCKED = """new Promise((done) => {
    let stopped = 0;
    addEventListener("securitypolicyviolation", () => ++stopped === 2 && done(true));
    document.createElement("img").src = "http://127.0.0.1:9/x.png";
    fetch("http://127.0.0.1:9/x").catch(() => {});
    setTimeout(() => done(false), 5000);
})"""


def screenshot(browser, path, width: int, scheme: str) -> None:
    command = browser.execute_cdp_cmd
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    command("Emulation.setEmulatedMedia", {"features": features})
    command("Emulation.setDeviceMetricsOverride", size)
    size["height"] = asked(browser, "document.documentElement.scrollHeight")
    command("Emulation.setDeviceMetricsOverride", size)
    path.write_bytes(base64.b64decode(browser.get_screenshot_as_base64()))
    command("Emulation.setDeviceMetricsOverride", size | {"width": width, "height": 900})


def numbers_are_pytorchs(browser, model) -> None:
    """The page's numbers for a new image are PyTorch's."""
    generator = torch.Generator().manual_seed(8)
    x = model.likelihood.observe(torch.rand(1, model.enc.x_dim, generator=generator) ** 2)
    label, given = None, ()
    if model.y_dim:
        label, given = 7, (nn.functional.one_hot(torch.tensor([7]), 10).float(),)
    m, v = model.enc.encode(x, *given)
    z = torch.randn(1, model.z_dim, generator=generator)
    h = model.dec.decode(z, *given)
    browser.execute_script(
        "window.m = explorer.model; window.x = arguments[0]; window.y = arguments[1];"
        "window.z = arguments[2]; window.q = m.encode(x, y); window.h = m.decode(z, y);",
        *(x[0].tolist(), label, z[0].tolist()),
    )
    assert close(asked(browser, "q.m"), m) and close(asked(browser, "q.v"), v)
    assert close(asked(browser, "h"), h)
    assert close(asked(browser, "m.mean(h)"), model.likelihood.mean(h))
    assert close(asked(browser, "m.logLikelihood(x, h)"), model.likelihood.log_prob(x, h))
    if isinstance(model, VAE):
        assert close(asked(browser, "m.logPrior(z)"), model.log_p_z(z))
        assert close(asked(browser, "m.logPosterior(z, q)"), model.log_q(z, m, v))
        closed = asked(browser, "m.klOfDimensions(q)")
        kl = asked(browser, "m.klAt(z, q)") if closed is None else math.fsum(closed)
        assert close(kl, model.kl_to_prior(z, m, v))
    else:
        assert close(asked(browser, "m.logPrior(z)"), ut.log_normal(z, *model.z_prior))
        kl = ut.kl_normal(m, v, *model.z_prior)
        assert close(math.fsum(asked(browser, "m.klOfDimensions(q)")), kl)
    if hasattr(model, "cls"):
        log_q = nn.functional.log_softmax(model.cls.classify(x), -1)
        assert close(asked(browser, "m.classify(x)"), log_q)
    assert asked(browser, "explorer.difference") < RELATIVE
    footer = browser.find_element("id", "difference").text
    assert f"{asked(browser, 'explorer.difference.toExponential(1)')}." in footer
    w, z = asked(browser, WEIGHT)
    z = torch.tensor([z])
    joint = -math.log(model.y_dim) if hasattr(model, "cls") else 0
    if hasattr(model, "cls"):
        y = int((log_q.exp().cumsum(-1) <= 0.3).sum())
        given, joint = (torch.eye(10)[[y]],), joint - log_q[0, y]
    m, v = model.enc.encode(x, *given)
    log_p_z = getattr(model, "log_p_z", lambda z: ut.log_normal(z, *model.z_prior))(z)
    log_q_z = getattr(model, "log_q", ut.log_normal)(z, m, v)
    log_p_x = model.likelihood.log_prob(x, model.dec.decode(z, *given))
    assert close(w, log_p_x + log_p_z - log_q_z + joint)
    weights = torch.randn(60, generator=generator)
    for size in (1, 7, 60):
        groups = weights[: 60 // size * size].view(-1, size)
        bounds = -ut.log_mean_exp(groups, 1)
        found = asked(browser, "explorer.iwae(Float64Array.from(a), b)", weights.tolist(), size)
        assert close(found["mean"], bounds.mean()) and found["groups"] == len(bounds)
        if len(bounds) > 1:
            assert close(found["deviation"], bounds.std())
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
    """The bound of the chosen image, and the importance weights, beside the model's own draws."""
    torch.manual_seed(0)
    wait(lambda: asked(browser, "explorer.state.values.estimate.draws") >= 200)
    # Its curve is there for those who print the page, or have not scrolled to it yet.
    wait(lambda: asked(browser, "explorer.tightening.count") >= 1000)
    wait(lambda: browser.find_elements("css selector", "#tighten polyline"))
    assert asked(browser, WHOLE_LABELS)
    browser.execute_script(
        "document.getElementById('tighten').scrollIntoView({behavior: 'instant'})"
    )
    wait(lambda: asked(browser, "explorer.tightening.count") > 1000)
    x = torch.tensor([asked(browser, "explorer.state.values.x")]).float()
    label = asked(browser, "explorer.state.values.label")
    given = (nn.functional.one_hot(torch.tensor([label]), 10).float(),) if kind == "fsvae" else ()
    draws = [model.negative_elbo_bound(x, *given) for _ in range(300)]
    draws = torch.tensor([[term.item() for term in terms] for terms in draws]).double()
    order = "nelbo kl kly rec draws" if kind == "ssvae" else "nelbo kl rec draws"
    read = [f"{ESTIMATE}.{name}" for name in order.split()]
    *terms, count = asked(browser, f"[{', '.join(read)}]")
    error = draws.std(0) * math.sqrt(1 / 300 + 1 / count)
    least = RELATIVE * draws.mean(0).abs() + 1e-6  # of float32, where KL_y cancels
    assert ((draws.mean(0) - torch.tensor(terms)).abs() <= 5 * error + least).all(), (draws, terms)
    shown = browser.find_element("css selector", '#encode [data-number="nelbo"]')
    assert re.fullmatch(r"−?\d+\.\d\d", shown.text)
    log_weights = torch.tensor(asked(browser, "explorer.tightening.logWeights"))
    error = log_weights.std() / math.sqrt(len(log_weights)) + draws[:, 0].std() / math.sqrt(300)
    assert abs(-log_weights.mean() - draws[:, 0].mean()) <= 5 * error + least[0]


# Whether the chart's labels lie inside it.
WHOLE_LABELS = """(() => {
    const box = document.querySelector("#tighten svg").getBoundingClientRect();
    const inside = (one) =>
        one.left >= box.left && one.right <= box.right && one.bottom <= box.bottom;
    const labels = [...document.querySelectorAll("#tighten svg text")];
    return labels.length > 9 && labels.every((text) => inside(text.getBoundingClientRect()));
})()"""
ESTIMATE = "explorer.state.values.estimate"


def parts_do_something(browser, model, kind) -> None:
    from selenium.webdriver import ActionChains, Keys

    def changes(act, selector: str) -> None:
        before = pixels(browser, selector)
        act()
        wait(lambda: pixels(browser, selector) != before)

    decoded, seen = "#decode canvas.large", "#encode figure canvas"
    sliders = browser.find_elements("css selector", "#decode input[type=range]")
    assert len(sliders) == min(model.z_dim, 10)
    for key in (Keys.ARROW_RIGHT, Keys.HOME, Keys.END):
        changes(lambda key=key: sliders[0].send_keys(key), decoded)
    dimension = int(sliders[0].get_attribute("data-dimension"))
    z = asked(browser, "explorer.state.values.z")
    mean, deviation = asked(
        browser, "[m.priorMoments(a).mean, m.priorMoments(a).deviation]", dimension
    )
    assert z[dimension] == pytest.approx(mean + 4 * deviation, rel=1e-6)
    changes(lambda: click(browser, "#draw-z"), decoded)
    changes(lambda: click(browser, "input[name=image][value='4']"), seen)
    assert "test image 5: a 4" in browser.find_element("css selector", "#encode figcaption").text
    changes(lambda: browser.find_element("id", "interpolate").send_keys(Keys.END), INTERPOLATED)
    # A digit drawn with the mouse, then one with keys.
    pad = browser.find_element("id", "pad")
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", pad
    )
    means = asked(browser, "explorer.state.values.z")
    strokes = ActionChains(browser, duration=10).move_to_element_with_offset(pad, -40, -60)
    strokes.click_and_hold().move_by_offset(60, 10).move_by_offset(-30, 90).release().perform()
    wait(lambda: "your drawing" in browser.find_element("css selector", "#encode figcaption").text)
    x = torch.tensor(asked(browser, "explorer.state.values.x"), dtype=torch.float32)
    assert x.shape == (model.enc.x_dim,) and 0 < x.mean() < 0.5
    assert not model.likelihood.binary or set(x.tolist()) == {0, 1}
    assert asked(browser, "explorer.state.values.z") != means
    changes(lambda: pad.send_keys(Keys.SPACE, *[Keys.ARROW_UP] * 5, Keys.SPACE), seen)
    changes(lambda: pad.send_keys(Keys.DELETE, Keys.SPACE, Keys.ARROW_LEFT), seen)
    # A press that begins outside draws nothing, nor does the other button; and back to an image.
    drawn = pixels(browser, "#pad")
    drag = ActionChains(browser, duration=10).move_to_element_with_offset(pad, -40, -190)
    drag.click_and_hold().move_by_offset(20, 190).release().context_click(pad).perform()
    assert pixels(browser, "#pad") == drawn
    changes(lambda: click(browser, "#encode .controls button"), seen)
    assert "test image 5: a 4" in browser.find_element("css selector", "#encode figcaption").text
    assert asked(browser, "document.querySelector('input[name=image]:checked').value") == "4"
    assert asked(browser, "document.querySelectorAll('label button').length") == 0
    if model.y_dim:
        changes(lambda: click(browser, "#decode [data-class='3']"), decoded)
        assert asked(browser, "explorer.state.values.y") == 3
        row = browser.find_elements("css selector", "#labels .row canvas")
        assert len(row) == 10
    if kind == "ssvae":
        cells = browser.find_elements("css selector", "#label-terms tbody tr")
        shares = [float(row.find_elements("css selector", "td")[1].text) for row in cells]
        assert len(cells) == 10 and math.fsum(shares) == pytest.approx(1, abs=1e-3)
    if kind == "gmvae":
        component = browser.find_element("css selector", "#decode input[type=number]")
        component.send_keys("7")
        changes(lambda: click(browser, "#draw-z"), decoded)
        assert "component 7 of 20" in browser.find_element("id", "decode").text
        changes(lambda: sliders[0].send_keys(Keys.HOME), decoded)
        assert "component 7 of 20" not in browser.find_element("id", "decode").text
        z = asked(browser, "explorer.state.values.z")
        component.send_keys("0")  # 70 is none of them
        click(browser, "#draw-z")
        assert asked(browser, "explorer.state.values.z") == z
    if kind == "plane":
        planes = browser.find_elements("css selector", "canvas.plane")
        browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", planes[0]
        )
        drag = ActionChains(browser, duration=10).move_to_element(planes[0]).click_and_hold()
        changes(lambda: drag.move_by_offset(50, -30).release().perform(), decoded)
        first, second = asked(browser, "explorer.state.values.z")
        assert first > 0.1 and second > 0.1
        changes(lambda: planes[1].send_keys(Keys.ARROW_DOWN), decoded)
        assert asked(browser, "explorer.state.values.z")[1] < second
        planes[1].send_keys(*[Keys.ARROW_DOWN] * 100)  # to the edge, not beyond
        z = wait(lambda: asked(browser, "explorer.state.values.z"))
        assert -5 < z[1] < -2
    if model.z_dim > 10:
        click(browser, "#decode .wide > button")
        sliders = browser.find_elements("css selector", "#decode input[type=range]")
        assert len(sliders) == min(model.z_dim, 60)
    # Every number's name shows its formula, and hides it again.
    names = browser.find_elements("css selector", "button.name")
    assert len(names) > 8
    for name in (names[0], names[-1]):
        place = browser.find_element("id", name.get_attribute("aria-controls"))
        browser.execute_script("arguments[0].click()", name)
        assert place.text and name.get_attribute("aria-expanded") == "true"
        browser.execute_script("arguments[0].click()", name)
        assert not place.is_displayed()
    unnamed = asked(
        browser,
        "[...document.querySelectorAll('button, input, select, canvas[tabindex]')].filter((one) => "
        "!(one.textContent.trim() || one.ariaLabel || one.labels?.length || one.title)).length",
    )
    assert unnamed == 0


INTERPOLATED = "#encode > div:last-child canvas"


@pytest.mark.browser
def test_a_collapsed_posterior_differs_no_more(browser, tmp_path):
    """Its KL is so small that float32 has but a few digits of it."""
    model = VAE(z_dim=10)
    with torch.no_grad():
        model.enc.net[4].weight.mul_(1e-3)
        model.enc.net[4].bias.copy_(torch.tensor([0.0, math.log(math.e - 1)]).repeat_interleave(10))
    export.write(tmp_path / "page.html", model, "", "", images_for(model))
    open_page(browser, tmp_path / "page.html")
    assert asked(browser, "explorer.difference") < RELATIVE


# Without a browser


def test_a_page_without_a_data_set_has_samples(tmp_path):
    for kind in MAKE:
        path = tmp_path / f"{kind}.html"
        export.write(path, made(kind), "a run", "about it")
        text = path.read_text(encoding="utf-8")
        page = json.loads(re.search(r'id="page">(.*?)</script>', text)[1])
        assert page["images"]["source"] == "sample of the model" and page["images"]["count"] == 10
        assert len(page["checks"]) == 3 and page["plane"] is None
    assert (tmp_path / "vae.html").stat().st_size < 4_000_000


def test_weights_are_kept_exactly():
    halves, whole = torch.randn(6).half().float(), torch.randn(3, 5)
    tensors = export._Tensors()
    kinds = [tensors.add(one)["tensor"][0] for one in (halves, whole, torch.arange(5).byte())]
    assert kinds == ["float16", "float32", "uint8"]
    block = base64.b64decode(tensors.encoded())
    [kind, offset, length] = tensors.add(whole)["tensor"]
    assert block[12:72] == whole.numpy().tobytes() and (kind, length) == ("float32", 15)
    assert offset % 4 == 0


def page_of(path):
    return json.loads(re.search(r'id="page">(.*?)</script>', path.read_text(encoding="utf-8"))[1])


def test_dimensions_have_the_order_of_traversal_png(tmp_path, folders):
    run = finished_run("run_vae.py", 3)
    found = tiny.tiny(run_vae.experiment).data(SimpleNamespace(batch_size=9), None)
    model = load_run(run.name)
    explore.write_page(run, model, 3, found, tmp_path / "page.html")
    with figures.isolated_draws(torch.device("cpu")):
        picture = figures.traversal(model, *data.examples(found))
    labels = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    rows = [int(row.partition(",")[0].removeprefix("z_")) - 1 for row in labels]
    assert page_of(tmp_path / "page.html")["order"] == rows


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


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.Linear(784, 300, bias=False), nn.ELU(0.5)])
def test_what_the_page_cannot_compute_is_refused(tmp_path, layer):
    model = made("vae")
    model.enc.net[0 if isinstance(layer, nn.Linear) else 1] = layer
    with pytest.raises(UserError, match="the page knows no layer"):
        export.write(tmp_path / "page.html", model, "", "")
    model = VAE(likelihood=Gaussian(0.1, torch.tanh))
    with pytest.raises(UserError, match="knows no"):
        export.write(tmp_path / "page.html", model, "", "")
    model = made("vae")
    model.dec.net[0].weight[0, 0] = math.nan
    with pytest.raises(UserError, match="not finite"):
        export.write(tmp_path / "page.html", model, "", "")
    model = VAE(likelihood=Gaussian(0.1, torch.sigmoid))
    model.requires_grad_(False).dec.net[4].bias.fill_(math.inf)
    model.dec.net[4].weight.fill_(-math.inf)
    with pytest.raises(UserError, match="not finite"):
        export.write(tmp_path / "page.html", model, "", "")
    model = made("vae")
    model.enc.net[4].bias[0] = 1e25  # whose square is not
    with pytest.raises(UserError, match="not finite"):
        export.write(tmp_path / "page.html", model, "", "")
    assert list(tmp_path.iterdir()) == []


def test_modules_import_those_before_them_alone():
    assert {path.stem for path in export.PAGE.glob("*.js")} == set(export.MODULES)
    exported = {}
    for name in export.MODULES:
        text = (export.PAGE / f"{name}.js").read_text(encoding="utf-8")
        for names, module in re.findall(r'^import \{([^}]*)\} from "\./(\w+)\.js";', text, re.M):
            wanted = {one.strip() for one in names.split(",") if one.strip()}
            assert wanted <= exported[module], (name, module)
        exported[name] = set(export._EXPORT.findall(text))
    assert "import " not in export.bundle().replace("important", "")


def test_the_command(tmp_path):
    page = tmp_path / "own" / "page.html"
    assert "there is no run yet" in refused(tmp_path, "codebase", "explore")
    reference = tmp_path / "checkpoints" / "reference"
    shutil.copytree(
        ROOT / "checkpoints" / "reference" / explore.DEFAULT, reference / explore.DEFAULT
    )
    stdout, _ = succeed(tmp_path, "codebase", "explore", "--out", page)
    assert stdout.splitlines()[-1] == f"Page: {page}"
    assert f"<title>{explore.DEFAULT}</title>" in page.read_text(encoding="utf-8")
    assert "nosuch does not exist" in refused(tmp_path, "codebase", "explore", "nosuch")
    damaged = tmp_path / "model=vae_z=10_run=0000"
    damaged.mkdir()
    (damaged / "model-00001.pt").write_bytes(b"x")
    assert "is refused" in refused(
        tmp_path, "codebase", "explore", damaged, "--out", tmp_path / "p"
    )
    assert not (tmp_path / "p").exists()
    error = refused(tmp_path, "codebase", "explore", "--out", tmp_path)
    assert "is not an ordinary file" in error


def test_the_last_run_is_the_default(folders, monkeypatch, capsys):
    monkeypatch.setattr(explore, "write_page", lambda *of: None)
    for number, seconds in ((1, 1000), (2, 2000), (3, 500)):
        run = finished_run("run_vae.py", 5, run=number)
        path = weights_file(run.folder, 5)
        os.utime(path, (seconds, seconds))
    newest = folders / "checkpoints" / "model=vae_z=04_run=0000"
    newest.mkdir()
    (newest / "model-00001.pt").symlink_to("nowhere")
    explore.explore(None, folders, folders / "page.html")
    assert "Run: model=vae_z=10_run=0002_data=synthetic" in capsys.readouterr().err


def test_a_page_neither_draws_nor_needs_a_data_set(tmp_path, capsys):
    run = Run("model=vae_z=10_run=0000_data=synthetic", {"data": "synthetic"}, {})
    model = VAE(z_dim=10)
    folder = tmp_path / "synthetic" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    assert explore._data_at_hand(run, model, tmp_path) is None
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert "are not in" in capsys.readouterr().err
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_MD5:
        (raw / name).write_bytes(b"damaged")
    assert explore._data_at_hand(Run("model=vae_z=10_run=0000", {}, {}), model, tmp_path) is None
    assert "are damaged in" in capsys.readouterr().err


def test_the_page_says_what_is_special_about_its_run(tmp_path):
    for name, model, said in (
        ("model=ssvae_gw=000_cw=100_run=0000", SSVAE(gen_weight=0), "only its classifier was"),
        ("model=vae_z=02_run=0000_nn=v3_prior=laplace", LaplaceVAE(), "--nn v3; --prior laplace"),
    ):
        path = tmp_path / f"{name}.html"
        explore.write_page(Run(name, {}, {}), model, 7, None, path)
        [about] = re.findall(r'"about": "([^"]*)"', path.read_text(encoding="utf-8"))
        assert said in about and "iteration 7" in about


def test_its_place_in_the_project():
    """Only the command line knows of the explorer, and `pip install` takes its page along."""
    knows = [
        path.relative_to(ROOT / "codebase").as_posix()
        for path in (ROOT / "codebase").rglob("*.py")
        if "codebase.explorer" in path.read_text(encoding="utf-8") and "explorer" not in path.parts
    ]
    assert sorted(knows) == ["__main__.py"]
    assert "explorer/page/*" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
