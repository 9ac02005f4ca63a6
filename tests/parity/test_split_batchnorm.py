"""BatchNorm in splits against MoCo's CIFAR notebook."""

import pytest
import torch

from similitude.nets import SplitBatchNorm2d


@pytest.mark.golden("split_batchnorm")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_split_batchnorm(vectors, close, layout):
    x = vectors["x"]
    norm = SplitBatchNorm2d(
        x.shape[2], vectors["num_splits"], eps=vectors["eps"], momentum=vectors["momentum"]
    ).double()
    norm.weight.data.copy_(vectors["weight"])
    norm.bias.data.copy_(vectors["bias"])
    for call, batch in enumerate(x):
        close(norm(batch.contiguous(memory_format=layout)).detach(), vectors["out_train"][call])
        close(norm.running_mean, vectors["running_mean_after"][call])
        close(norm.running_var, vectors["running_var_after"][call])
    close(norm.eval()(x[0]).detach(), vectors["out_eval_of_x0"])
