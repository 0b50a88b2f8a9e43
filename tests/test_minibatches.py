"""Minibatches: every image once an epoch, binarised afresh."""

import pytest
import torch

from codebase.minibatches import Minibatches


def test_an_epoch_is_every_image_once_in_a_new_order():
    torch.manual_seed(0)
    images = torch.arange(250, dtype=torch.uint8)[:, None]
    loader = Minibatches(images, torch.arange(250), batch_size=97, binarised=False)
    epochs = [list(loader) for _ in range(2)]
    assert len(loader) == 3 and [len(x) for x, _ in epochs[0]] == [97, 97, 56]
    orders = [torch.cat([label for _, label in epoch]) for epoch in epochs]
    assert not torch.equal(*orders)
    for epoch, order in zip(epochs, orders, strict=True):
        assert torch.equal(order.sort().values, torch.arange(250))
        assert torch.equal(torch.cat([x for x, _ in epoch])[:, 0], order.float() / 255)


def test_images_are_binarised_afresh_at_every_use():
    torch.manual_seed(0)
    grey = torch.tensor([[0, 51, 128, 255]], dtype=torch.uint8)
    loader = Minibatches(grey.expand(20_000, -1), batch_size=20_000)
    (first,), (second,) = next(iter(loader)), next(iter(loader))
    assert first.unique().tolist() == [0, 1] and not torch.equal(first, second)
    for x in (first, second):
        error = (x.mean(0) - grey[0] / 255).abs()
        assert error.max() < 4 * 0.5 / 20_000**0.5
        assert error[0] == 0 and error[3] == 0  # what is certain is so


def test_floats_are_used_as_they_are():
    for dtype in (torch.float32, torch.float64):
        images = torch.rand(5, 3, dtype=dtype)
        [(x,)] = Minibatches(images, batch_size=5, binarised=False)
        assert x.dtype == dtype and torch.equal(x.sort(0).values, images.sort(0).values)


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(5, 28, 28), r"got \(5, 28, 28\): pass images.flatten\(1\)"),
        ([[0.0]], "got list: pass torch.as_tensor or torch.stack"),
        (torch.full((5, 3), 255.0), r"from 255 to 255, expected \[0, 1\]: pass images / 255"),
        (torch.zeros(5, 3, dtype=torch.int64), "torch.int64, expected uint8, float32 or float64"),
        (torch.zeros(5, 3, dtype=torch.bool), r"pass images.float\(\)"),
        (torch.ones(5, 3, dtype=torch.uint8), r"bytes up to 1, expected 255: pass images.float"),
        (torch.zeros(5, 32, 32, 3), r"images.permute\(0, 3, 1, 2\).flatten\(1\)"),
        (torch.full((5, 4), -0.5), r"pass \(images \+ 1\) / 2"),
    ],
)
def test_images_of_another_form_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        Minibatches(images)
    for target in (torch.zeros(4), torch.tensor(3)):
        with pytest.raises(ValueError, match="expected 5 rows"):
            Minibatches(torch.zeros(5, 3), target)


def test_labelled_images_go_with_every_minibatch():
    torch.manual_seed(0)
    xl, yl = torch.rand(10, 4), torch.eye(10)
    images = torch.full((30, 4), 255, dtype=torch.uint8)
    for x, xl_drawn, yl_drawn in Minibatches(images, labelled=(xl, yl)):
        assert x.shape == (30, 4) and torch.equal(yl_drawn, yl)
        assert xl_drawn.unique().tolist() == [0, 1]
    loader = Minibatches(images, torch.arange(30), labelled=(xl, yl))
    assert [len(batch) for batch in loader] == [4]
