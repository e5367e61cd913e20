"""Our attention on a CPU is PyTorch's, in value and gradient, whatever the lengths and the heads that share a key."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dpo_train.policy.cpu_attention import BLOCK, attend, fits


def drawn(heads: int, tokens: int, seed: int) -> Tensor:
    # as transformers' layers hand it over: heads and tokens swapped in a view
    values = torch.randn(1, tokens, heads, 16, generator=torch.Generator().manual_seed(seed))
    return values.transpose(1, 2).requires_grad_()


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(
    "lengths", [(1, 1), (7, 7), (BLOCK, BLOCK), (BLOCK + 3, BLOCK + 3), (5, 300), (2 * BLOCK + 1, 400)]
)
def test_value_and_gradients_equal_pytorchs(heads: tuple[int, int], lengths: tuple[int, int]) -> None:
    queries, keys = lengths
    given = drawn(heads[0], queries, 0), drawn(heads[1], keys, 1), drawn(heads[1], keys, 2)
    assert fits(*given[:2]), "oneDNN is part of every PyTorch build for this machine"
    upstream = torch.randn(1, queries, heads[0], 16)
    mine = attend(*given, scale=0.3)
    grads = torch.autograd.grad(mine, given, upstream)
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    theirs = scaled_dot_product_attention(*given, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(grads, torch.autograd.grad(theirs, given, upstream), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_other_precisions_are_left_to_pytorch() -> None:
    assert not fits(drawn(2, 3, 0).double(), drawn(2, 3, 1).double())
