"""Export a trained model as one HTML file, which runs its networks in the browser.

page/ has the template, the style sheet and the JavaScript modules. The output combines them with
the model's networks, layer by layer, its prior, images, and PyTorch's numbers for three images,
which check the page's own numbers.
"""

import base64
import copy
import html
import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codebase import utils as ut
from codebase.data import one_hot
from codebase.figures import PALETTE, isolated_draws, most_used, posterior_means
from codebase.machine.files import write_atomically
from codebase.models.base import LatentVariableModel
from codebase.project import UserError

PAGE = Path(__file__).parent / "page"
# In the order in which they need each other.
MODULES = (
    *("densities", "tensors", "model", "state", "dom", "formulas", "estimate", "decode", "pad"),
    *("encode", "tighten", "labels", "main"),
)
CHECKS = 3  # images whose numbers are compared
POINTS = 2000  # posterior means on the plane
LAYERS = {nn.ELU: "elu", nn.ReLU: "relu"}


class Images(NamedTuple):
    """Images to encode.

    x: tensor: (n, x_dim) in [0, 1]
    y: tensor: (n,): their labels
    source: kind of the images, such as "test image"
    """

    x: Tensor
    y: Tensor
    source: str


def write(
    path: Path,
    model: LatentVariableModel,
    title: str,
    about: str,
    images: Images | None = None,
    test: tuple[Tensor, Tensor] | None = None,
    examples: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Write the explorer page for a model.

    Args:
        path: the file to write
        model: any model of the project, with its weights
        title: title of the page, in plain text
        about: line below the title, in plain text
        images: images to encode; None: the model's own samples
        test: images, with labels, whose posterior means are shown if z has two dimensions; None:
            no means are shown
        examples: images, with labels, that determine the most used dimensions, as in traversal.png;
            None: the images to encode

    Raises:
        UserError: the page does not support a layer or likelihood of the model
    """
    with isolated_draws(next(model.parameters()).device):
        order = examples and most_used(posterior_means(model, *examples))
        model, described = in_half_precision(model), _Tensors()
        page = describe(model, described, images, test, order) | {"title": title, "about": about}
    tensors = base64.b64encode(described.block).decode()
    write_atomically(path, assembled(title, page, tensors).encode())


# The model


class _Tensors:
    """Tensors in one block of bytes, each referenced by dtype, offset and length."""

    def __init__(self):
        self.block = bytearray()

    def add(self, tensor: Tensor) -> dict:
        """Add a tensor, in half precision if that is exact, and return a reference to it."""
        tensor = tensor.detach().cpu()
        kind = "uint8"
        if tensor.is_floating_point():
            tensor = tensor.float()
            is_half = torch.equal(tensor.half().float(), tensor)
            tensor, kind = (tensor.half(), "float16") if is_half else (tensor, "float32")
        self.block += bytes(-len(self.block) % 4)
        offset = len(self.block)
        self.block += tensor.contiguous().numpy().tobytes()
        return {"tensor": [kind, offset, tensor.numel()]}


@torch.no_grad()
def describe(
    model: LatentVariableModel, tensors: _Tensors, images=None, test=None, order=None
) -> dict:
    """Return the page's description of a model; see `write`."""
    if images is None:
        x, y, source = _samples(model)
    else:
        x, y, source = images._replace(x=model.likelihood.observe(images.x))
    x = x.mul(255).round() / 255  # as the page has them
    order = most_used(posterior_means(model, x, y)) if order is None else order
    networks = {
        name: layers(getattr(model, name).net, tensors)
        for name in ("enc", "dec", "cls")
        if hasattr(model, name)
    }
    squash = getattr(model.likelihood, "squash", None)
    if squash not in (None, torch.sigmoid):
        raise UserError(f"the page knows no {squash} of means: see mean() in page/model.js")
    mixture = model.z_prior[0].dim() == 3  # (1, k, z_dim)
    m, v = (p[0] if mixture else p.expand(1, model.z_dim) for p in model.z_prior)
    plane = None
    if model.z_dim == 2 and test is not None:
        means = posterior_means(model, *(tensor[:POINTS] for tensor in test))
        plane = {"points": tensors.add(means), "labels": tensors.add(test[1][:POINTS].byte())}
    return {
        "kind": type(model).__name__.replace("LaplaceVAE", "VAE"),
        "z_dim": model.z_dim,
        "y_dim": model.y_dim,
        "shape": model.enc.image_shape,
        "family": model.family,
        "likelihood": {
            "binary": model.likelihood.binary,
            "variance": getattr(model.likelihood, "variance", None),
            "squash": squash is not None,
        },
        "networks": networks,
        "prior": {"m": tensors.add(m), "v": tensors.add(v), "mixture": mixture},
        "order": order.tolist(),
        "images": {
            "source": source,
            "count": len(x),
            "x": tensors.add(x.mul(255).round().byte()),
            "labels": y.tolist() if images is not None or model.y_dim else None,
        },
        "plane": plane,
        "palette": PALETTE,
        "checks": checks(model, x, y, tensors),
    }


@torch.no_grad()
def in_half_precision(model: LatentVariableModel) -> LatentVariableModel:
    """Return a half-precision copy of the model if that changes no bound; otherwise the model.

    Half precision halves the size of the page. A bound counts as unchanged if, on the model's own
    samples, it changes by less than a hundredth of a nat.
    """
    x, y, _ = _samples(model)
    rounded = copy.deepcopy(model).half().to(x.dtype)
    observed = model.observed(x, one_hot(y).to(x))
    bounds = []
    for one in (model, rounded):
        with isolated_draws(x.device):
            bounds.append(one.negative_elbo_bound(*observed)[0].item())
    return rounded if abs(bounds[0] - bounds[1]) < 0.01 else model


def _samples(model: LatentVariableModel, count: int = 10) -> Images:
    """Draw images from the model, one of each class if it has classes."""
    z, *labels = model.sample_latents(count)
    y = torch.arange(count, device=z.device)
    if labels:
        labels = [nn.functional.one_hot(y, model.y_dim).to(z)]
    x = model.compute_mean_given(z, *labels).clamp(0, 1)
    return Images(model.likelihood.observe(x), y, "sample of the model")


def layers(net: nn.Sequential, tensors: _Tensors) -> list[dict]:
    """Describe a network layer by layer. Raises UserError if the page does not support a layer."""
    found = []
    for layer in net:
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            weight, bias = tensors.add(layer.weight), tensors.add(layer.bias)
            found.append({"kind": "linear", "weight": weight, "bias": bias})
        elif type(layer) in LAYERS and getattr(layer, "alpha", 1) == 1:
            found.append({"kind": LAYERS[type(layer)]})
        else:
            raise UserError(
                f"the page knows no layer {layer}: add it to forward() in page/model.js"
            )
    return found


def checks(model: LatentVariableModel, x: Tensor, y: Tensor, tensors: _Tensors) -> list[dict]:
    """Return PyTorch's numbers for a few images: the posterior, and its decoded mean.

    KL is in closed form or, if it has no closed form, estimated at the posterior's mean.
    """
    found = []
    kl = getattr(model, "kl_to_prior", lambda z, m, v: ut.kl_normal(m, v, *model.z_prior))
    for one, label in zip(x[:CHECKS, None], y[:CHECKS, None], strict=True):
        given = (one_hot(label).to(one),) if model.y_dim else ()
        m, v = model.enc.encode(one, *given)
        h = model.dec.decode(m, *given)
        check = {
            "x": tensors.add(one[0]),
            "y": label.item() if given else None,
            "m": tensors.add(m[0]),
            "v": tensors.add(v[0]),
            "h": tensors.add(h[0]),
            "kl": kl(m, m, v).item(),
            "rec": -model.likelihood.log_prob(one, h).item(),
        }
        if hasattr(model, "cls"):
            check["logits"] = tensors.add(model.cls.classify(one)[0])
        found.append(check)
    return found


# The file


def assembled(title: str, page: dict, tensors: str) -> str:
    """Fill in the template."""
    fields = {
        "title": html.escape(title),
        "style": (PAGE / "style.css").read_text(encoding="utf-8"),
        "script": bundle(),
        "page": json.dumps(page, allow_nan=False).replace("<", "\\u003c"),  # no end of the element
        "tensors": tensors,
    }
    template = (PAGE / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def bundle() -> str:
    """Join the modules into one script, because a page opened as a file cannot import modules.

    Each module becomes a function that returns its exports; its other names stay local.
    """
    parts = []
    for name in MODULES:
        text = (PAGE / f"{name}.js").read_text(encoding="utf-8")
        text = re.sub(
            r'^import (\{[^}]*\}) from "\./(\w+)\.js";', r"const \1 = \2Module;", text, flags=re.M
        )
        text, exported = re.sub(r"^export ", "", text, flags=re.M), _EXPORT.findall(text)
        parts.append(
            f"const {name}Module = (() => {{\n{text}return {{ {', '.join(exported)} }};\n}})();\n"
        )
    return "\n".join(parts)


_EXPORT = re.compile(r"^export (?:const|function|class) (\w+)", re.M)
