"""Submissions as students hand them in: the starter, with bodies to choose."""

import functools
import textwrap
import zipfile
from pathlib import Path

from codebase.homework import starter
from codebase.homework.problems import PROBLEMS

# The least that is a submission.
CODE = {
    "codebase/models/vae.py": "class VAE:\n    pass\n",
    "codebase/utils.py": "def log_normal(x, m, v):\n    return x\n",
}
# Right bodies; the first of each function is the usual one.
RIGHT = {
    "sample_gaussian": [
        """
        return m + torch.sqrt(v) * torch.randn_like(m)
        """,
        """
        sigma = torch.exp(0.5 * torch.log(v))
        z = torch.randn(m.shape).to(m.device)
        z = z * sigma
        z += m
        return z
        """,
        """
        return torch.distributions.Normal(m, torch.sqrt(v)).rsample()
        """,
        """
        rows = []
        v = v.expand_as(m)
        for i in reversed(range(m.shape[0])):
            rows.append(m[i] + v[i] ** 0.5 * torch.randn(m.shape[1:], dtype=m.dtype))
        return torch.stack(rows[::-1])
        """,
        """
        u = torch.randn(m.numel(), dtype=torch.float64).view(m.t().shape).t()
        return (m.double() + v.double().sqrt() * u).to(m.dtype)
        """,
    ],
    "log_normal": [
        """
        return (-0.5 * (np.log(2 * np.pi) + torch.log(v) + (x - m) ** 2 / v)).sum(-1)
        """,
        """
        return torch.distributions.Normal(m, v.sqrt()).log_prob(x).sum(-1)
        """,
        """
        m, v = m + 0 * x, v + 0 * x
        const = -0.5 * v.shape[-1] * torch.log(torch.tensor(2 * np.pi))
        square = torch.einsum("...i,...i->...", (x - m) / v, x - m)
        return const - 0.5 * v.log().sum(-1) - 0.5 * square
        """,
        """
        total = 0
        x, m, v = torch.broadcast_tensors(x, m, v)
        for i in range(x.size(-1)):
            inside = -(x[..., i] - m[..., i]).pow(2) / (2 * v[..., i])
            total = total + inside - torch.log(torch.sqrt(2 * np.pi * v[..., i]))
        return total
        """,
    ],
    "log_normal_mixture": [
        """
        z = z.unsqueeze(1).expand(-1, m.size(1), -1)
        return log_mean_exp(log_normal(z, m, v), 1)
        """,
        """
        out = None
        for k in range(m.shape[1]):
            one = log_normal(z, m[:, k], v[:, k])
            out = one if out is None else torch.logaddexp(out, one)
        return out - np.log(m.shape[1])
        """,
        """
        m, v = m.expand(z.size(0), -1, -1), v.expand(z.size(0), -1, -1)
        mix = torch.distributions.Categorical(torch.ones(m.shape[:2]))
        parts = torch.distributions.Independent(torch.distributions.Normal(m, v.sqrt()), 1)
        return torch.distributions.MixtureSameFamily(mix, parts).log_prob(z)
        """,
        """
        log_p = log_normal(z[:, None, :], m, v)
        top = log_p.max(dim=1, keepdim=True).values.detach()
        return (top + torch.log(torch.mean(torch.exp(log_p - top), dim=1, keepdim=True))).squeeze(1)
        """,
    ],
    "VAE.negative_elbo_bound": [
        """
        m, v = self.enc.encode(x)
        z = ut.sample_gaussian(m, v)
        rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
        kl = ut.kl_normal(m, v, self.z_prior_m, self.z_prior_v).mean()
        return kl + rec, kl, rec
        """,
        """
        m, v = self.enc.encode(x)
        kl = torch.mean(-0.5 * torch.sum(1 + v.log() - m.pow(2) - v, dim=1))
        logits = self.dec.decode(m + v.sqrt() * torch.randn(m.shape))
        rec = F.binary_cross_entropy_with_logits(logits, x, reduction='sum') / x.shape[0]
        nelbo = rec + kl
        return nelbo, kl, rec
        """,
        """
        m, v = self.enc.encode(x)
        q = torch.distributions.Normal(m, v.sqrt())
        p = torch.distributions.Normal(0., 1.)
        z = q.rsample()
        kl = torch.distributions.kl_divergence(q, p).sum(1).mean()
        bernoulli = torch.distributions.Bernoulli(logits=self.dec.decode(z))
        rec = -bernoulli.log_prob(x).sum(1).mean()
        return (kl + rec), kl, rec
        """,
        """
        kls, recs = [], []
        for i in range(len(x) - 1, -1, -1):
            m, v = self.enc.encode(x[i:i + 1])
            z = ut.sample_gaussian(m, v)
            logits = self.dec.decode(z)
            recs.append(-(x[i] * F.logsigmoid(logits) + (1 - x[i]) * F.logsigmoid(-logits)).sum())
            kls.append(ut.kl_normal(m, v, *self.z_prior).squeeze())
        kl, rec = sum(kls) / len(kls), sum(recs) / len(recs)
        return kl + rec, kl, rec
        """,
        """
        m, v = self.enc.encode(x)
        z = ut.sample_gaussian(m, v)
        kl = (ut.log_normal(z, m, v) - ut.log_normal(z, *self.z_prior)).mean()
        rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
        return kl + rec, kl, rec
        """,
    ],
    "GMVAE.negative_elbo_bound": [
        """
        prior = ut.gaussian_parameters(self.z_pre, dim=1)
        m, v = self.enc.encode(x)
        z = ut.sample_gaussian(m, v)
        kl = (ut.log_normal(z, m, v) - ut.log_normal_mixture(z, *prior)).mean()
        rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
        return kl + rec, kl, rec
        """,
        """
        m_k, v_k = ut.gaussian_parameters(self.z_pre, dim=1)
        m, v = self.enc.encode(x)
        z = ut.sample_gaussian(m, v)
        m_k, v_k = ut.duplicate(m_k, len(x)), ut.duplicate(v_k, len(x))
        terms = ut.log_normal(z.unsqueeze(1), m_k, v_k)
        log_p = torch.logsumexp(terms, 1) - torch.log(torch.tensor(float(self.k)))
        per_image = ut.log_normal(z, m, v) - log_p
        rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z))
        return (per_image + rec).mean(), per_image.mean(), rec.mean()
        """,
        """
        m, h = self.z_pre[0, :self.k], self.z_pre[0, self.k:]
        prior = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(self.pi),
            torch.distributions.Independent(
                torch.distributions.Normal(m, (F.softplus(h) + 1e-8).sqrt()), 1))
        kl = rec = 0
        for _ in range(4):
            q_m, q_v = self.enc.encode(x)
            q = torch.distributions.Independent(torch.distributions.Normal(q_m, q_v.sqrt()), 1)
            z = q.rsample()
            kl = kl + (q.log_prob(z) - prior.log_prob(z)).mean() / 4
            rec = rec - ut.log_bernoulli_with_logits(x, self.dec.decode(z)).mean() / 4
        return kl + rec, kl, rec
        """,
    ],
    "VAE.negative_iwae_bound": [
        """
        m, v = self.enc.encode(x)
        m, v, x_iw = ut.duplicate(m, iw), ut.duplicate(v, iw), ut.duplicate(x, iw)
        z = ut.sample_gaussian(m, v)
        kl = ut.log_normal(z, m, v) - ut.log_normal(z, self.z_prior_m, self.z_prior_v)
        rec = -ut.log_bernoulli_with_logits(x_iw, self.dec.decode(z))
        niwae = -ut.log_mean_exp(-(kl + rec).reshape(iw, -1), dim=0).mean()
        return niwae, kl.mean(), rec.mean()
        """,
        """
        m, v = self.enc.encode(x)
        logs, kls, recs = [], 0, 0
        for _ in range(iw):
            z = ut.sample_gaussian(m, v)
            kl = ut.log_normal(z, m, v) - ut.log_normal(z, *self.z_prior)
            rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z))
            logs.append(-kl - rec)
            kls, recs = kls + kl.mean() / iw, recs + rec.mean() / iw
        return -(torch.logsumexp(torch.stack(logs, 1), 1) - np.log(iw)).mean(), kls, recs
        """,
        """
        m, v = [p.repeat_interleave(iw, dim=0) for p in self.enc.encode(x)]
        z = ut.sample_gaussian(m, v)
        kl = (ut.log_normal(z, m, v) - ut.log_normal(z, *self.z_prior)).view(-1, iw)
        x = x.repeat_interleave(iw, 0)
        rec = -ut.log_bernoulli_with_logits(x, self.dec.decode(z)).view(-1, iw)
        return -ut.log_mean_exp(-kl - rec, 1).mean(), kl.mean(), rec.mean()
        """,
        """
        m, v = self.enc.encode(x)
        m, v = m.expand(iw, *m.shape), v.expand(iw, *v.shape)
        z = ut.sample_gaussian(m, v)
        kl = ut.log_normal(z, m, v) - ut.log_normal(z, *self.z_prior)
        rec = -ut.log_bernoulli_with_logits(x.expand(iw, *x.shape), self.dec.decode(z))
        bound = ut.log_mean_exp(-(kl + rec), dim=0).mean()
        return -bound, kl.mean(), rec.mean()
        """,
    ],
    "GMVAE.negative_iwae_bound": [
        """
        prior_m, prior_v = ut.gaussian_parameters(self.z_pre, dim=1)
        m, v = self.enc.encode(x)
        m, v, x_iw = ut.duplicate(m, iw), ut.duplicate(v, iw), ut.duplicate(x, iw)
        z = ut.sample_gaussian(m, v)
        kl = ut.log_normal(z, m, v) - ut.log_normal_mixture(z, prior_m, prior_v)
        rec = -ut.log_bernoulli_with_logits(x_iw, self.dec.decode(z))
        niwae = -ut.log_mean_exp(-(kl + rec).reshape(iw, -1), dim=0).mean()
        return niwae, kl.mean(), rec.mean()
        """,
        """
        prior = ut.gaussian_parameters(self.z_pre, dim=1)
        bounds, kls, recs = [], [], []
        for image in x:
            m, v = self.enc.encode(image.expand(iw, -1))
            z = ut.sample_gaussian(m, v)
            kl = ut.log_normal(z, m, v) - ut.log_normal_mixture(z, *prior)
            rec = -ut.log_bernoulli_with_logits(image.expand(iw, -1), self.dec.decode(z))
            bounds.append(-ut.log_mean_exp(-kl - rec, 0))
            kls.append(kl.mean()); recs.append(rec.mean())
        return torch.stack(bounds).mean(), torch.stack(kls).mean(), torch.stack(recs).mean()
        """,
        """
        m, v = self.enc.encode(x)
        prior = ut.gaussian_parameters(self.z_pre, dim=1)
        z = ut.sample_gaussian(ut.duplicate(m, iw), ut.duplicate(v, iw))
        log_q = ut.log_normal(z.view(iw, *m.shape), m, v)
        log_p = ut.log_normal_mixture(z, *prior).view(iw, -1)
        log_x = ut.log_bernoulli_with_logits(ut.duplicate(x, iw), self.dec.decode(z)).view(iw, -1)
        w = (log_x + log_p - log_q).double()
        niwae = (np.log(iw) - torch.logsumexp(w, 0)).mean().float()
        return niwae, (log_q - log_p).mean(), -log_x.mean()
        """,
    ],
    "SSVAE.negative_elbo_bound": [
        """
        y_logits = self.cls.classify(x)
        y_logprob = F.log_softmax(y_logits, dim=1)
        y_prob = torch.softmax(y_logprob, dim=1)
        y = np.repeat(np.arange(self.y_dim), x.size(0))
        y = x.new(np.eye(self.y_dim)[y])
        xx = ut.duplicate(x, self.y_dim)
        m, v = self.enc.encode(xx, y)
        z = ut.sample_gaussian(m, v)
        kl_y = ut.kl_cat(y_prob, y_logprob, np.log(1.0 / self.y_dim)).mean()
        kl_z = ut.kl_normal(m, v, *self.z_prior).reshape(self.y_dim, -1)
        rec = -ut.log_bernoulli_with_logits(xx, self.dec.decode(z, y)).reshape(self.y_dim, -1)
        kl_z = (y_prob.t() * kl_z).sum(0).mean()
        rec = (y_prob.t() * rec).sum(0).mean()
        return rec + kl_z + kl_y, kl_z, kl_y, rec
        """,
        """
        log_q = F.log_softmax(self.cls.classify(x), -1)
        q = log_q.exp()
        kl_z = rec = 0
        for label in range(9, -1, -1):
            y = F.one_hot(torch.full((len(x),), label), 10).float()
            m, v = self.enc.encode(x, y)
            z = ut.sample_gaussian(m, v)
            weight = q[:, label]
            kl_z = kl_z + (weight * ut.kl_normal(m, v, *self.z_prior)).mean()
            rec = rec - (weight * ut.log_bernoulli_with_logits(x, self.dec.decode(z, y))).mean()
        kl_y = (q * (log_q + np.log(10))).sum(1).mean()
        return kl_z + kl_y + rec, kl_z, kl_y, rec
        """,
        """
        n = x.size(0)
        q = torch.distributions.Categorical(logits=self.cls.classify(x))
        uniform = torch.distributions.Categorical(torch.ones(n, 10))
        kl_y = torch.distributions.kl_divergence(q, uniform).mean()
        y = torch.eye(10).repeat(n, 1)
        x10 = x.repeat_interleave(10, 0)
        m, v = self.enc.encode(x10, y)
        z = m + v.sqrt() * torch.randn_like(m)
        kl = ut.kl_normal(m, v, *self.z_prior).view(n, 10)
        rec = -ut.log_bernoulli_with_logits(x10, self.dec.decode(z, y)).view(n, 10)
        kl_z = torch.einsum("ij,ij->", q.probs, kl) / n
        rec = torch.einsum("ij,ij->", q.probs, rec) / n
        return kl_z + kl_y + rec, kl_z, kl_y, rec
        """,
    ],
    "FSVAE.negative_elbo_bound": [
        """
        m, v = self.enc.encode(x, y)
        z = ut.sample_gaussian(m, v)
        kl_z = ut.kl_normal(m, v, self.z_prior_m, self.z_prior_v).mean()
        rec = -ut.log_normal(x, self.dec.decode(z, y), 0.1 * torch.ones_like(x)).mean()
        return kl_z + rec, kl_z, rec
        """,
        """
        m, v = self.enc.encode(x, y)
        z = ut.sample_gaussian(m, v)
        mu = self.dec.decode(z, y)
        rec = (0.5 * np.log(2 * np.pi * 0.1) * x.shape[1] + 5 * ((x - mu) ** 2).sum(1)).mean()
        kl = (0.5 * (m ** 2 + v - v.log() - 1)).sum(1).mean()
        return rec + kl, kl, rec
        """,
        """
        m, v = self.enc.encode(x, y)
        z = torch.distributions.Normal(m, v.sqrt()).rsample()
        p = torch.distributions.Normal(self.dec.decode(z, y), np.sqrt(0.1))
        rec = -p.log_prob(x).sum(-1).mean()
        kl = ut.kl_normal(m, v, torch.zeros_like(m), torch.ones_like(v)).mean()
        return kl + rec, kl, rec
        """,
    ],
}
OTHER = {function: bodies[1] for function, bodies in RIGHT.items()}
HEAD = "import numpy as np\nimport torch\nimport torch.nn.functional as F\n"


@functools.cache
def handed_out() -> dict[str, str]:
    """The starter."""
    return {name: content.decode() for name, content in starter.starter_files().items()}


def homework(bodies: dict[str, str] | None = None, package: str = "codebase") -> dict[str, str]:
    """A submission's files, by paths such as codebase/utils.py.

    Args:
        bodies: of functions; of the others, the usual right ones
        package: "codebase" or "submission"
    """
    chosen = {function: right[0] for function, right in RIGHT.items()} | (bodies or {})
    files = {}
    for name, text in handed_out().items():
        if not name.startswith(("codebase/utils.py", "codebase/models/")):
            continue
        asked = [problem for problem in PROBLEMS if f"codebase/{problem.file}" == name]
        filled, *rest = text.split(starter.BLANK)
        for problem, after in zip(asked, rest, strict=True):
            body = textwrap.dedent(chosen[problem.key])
            filled += textwrap.indent(body, " " * (8 if problem.model else 4)).strip() + after
        filled = HEAD + filled if asked else filled
        files[name.replace("codebase", package, 1)] = filled.replace("codebase", package)
    return files


def folder(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder; returns it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    """Write files as a zip; returns it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
