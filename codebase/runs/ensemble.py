"""Several replicates of a model trained as one: each step is one batched matrix product a layer.

The models of the homework are small: one of them leaves an accelerator idle. Stacked parameters and
`torch.func.vmap` train many at once, each with its own weights, order of the data and noise.
"""

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap


class Ensemble(torch.nn.Module):
    """Models of one kind behind the interface that the training loop knows: `loss(*batch)`.

    Args:
        models: their weights are copied here; `write_back` copies the trained ones back
    """

    def __init__(self, models: list[torch.nn.Module]):
        super().__init__()
        self._models = [_Loss(model) for model in models]  # in a list, so as not to be submodules
        parameters, self._buffers_of_all = stack_module_state(self._models)
        self._names = list(parameters)
        self.stacked = torch.nn.ParameterList(parameters.values())

    def loss(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the models' losses, whose gradient is each model's own.

        Args:
            batch: tensors: (models, batch, ...): a minibatch for each model

        Returns:
            (loss, summaries): a scalar, and tensors (models,) by their tags
        """

        def one(parameters, buffers, *batch):
            return functional_call(self._models[0], (parameters, buffers), batch)

        parameters = dict(zip(self._names, self.stacked, strict=True))
        losses, summaries = vmap(one, randomness="different")(
            parameters, self._buffers_of_all, *batch
        )
        return losses.sum(), summaries

    def write_back(self) -> None:
        """Copy the trained weights into the models."""
        for i, model in enumerate(self._models):
            own = dict(model.named_parameters())
            for name, stacked in zip(self._names, self.stacked, strict=True):
                own[name].data.copy_(stacked[i])


class _Loss(torch.nn.Module):
    """functional_call calls forward: here, the loss."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.loss(*batch)
