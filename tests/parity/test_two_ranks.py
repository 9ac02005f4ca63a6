"""MoCo, MoCo v3, SwAV and DINO over two real processes, against their code over as many."""

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from builders import leave, start_processes
from similitude.distributed import gather
from similitude.losses import in_batch_info_nce, info_nce, self_distillation, sinkhorn
from similitude.memory import Center, FeatureQueue


def process(number, vectors, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    temperature = vectors["temperature"]

    columns = vectors["moco_queue_init"]
    queue = FeatureQueue(columns.shape[1], len(columns)).double()
    queue.keys.copy_(columns.T)
    query = F.normalize(vectors["moco_q"][number], dim=1)
    key = F.normalize(vectors["moco_k"][number], dim=1)
    loss = info_nce(query, key, queue.snapshot(), temperature=temperature)
    queue.enqueue(gather(key))

    q = vectors["mocov3_q"][number].requires_grad_()
    keys = gather(vectors["mocov3_k"][number])
    whole = 2 * temperature * in_batch_info_nce(gather(q), keys, temperature=temperature)
    whole.backward()

    scores = vectors["sinkhorn_scores"][number]
    codes = sinkhorn(gather(scores), epsilon=vectors["epsilon"], iterations=3)
    codes = codes[number * len(scores) : (number + 1) * len(scores)]

    online, target = (vectors[f"dino_{who}"][number].chunk(2) for who in ("student", "teacher"))
    center = Center(target[0].shape[1], decay=0.9).double()
    temperatures = {"online_temperature": 0.1, "target_temperature": 0.04}
    dino_loss = self_distillation(online, target, center.value, **temperatures)
    center.update(gather(torch.cat(target).mean(dim=0, keepdim=True)))

    torch.save(
        {"loss": loss, "keys": queue.keys, "cursor": queue.cursor, "whole": whole.detach()}
        | {"grad": q.grad, "codes": codes, "dino_loss": dino_loss, "center": center.value},
        f"{folder}/{number}",
    )
    leave()


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.golden("two_ranks")
def test_two_ranks(vectors, close, tmp_path):
    start_processes(process, vectors, str(tmp_path))
    for number in range(2):
        ours = torch.load(tmp_path / str(number), weights_only=True)
        close(ours["loss"], vectors["moco_loss_per_rank"][number])
        close(ours["keys"].T, vectors["moco_queue_after"])
        assert ours["cursor"] == vectors["moco_ptr_after"]
        # The mean of the reference's local losses, and the gradient that DDP then averages.
        close(ours["whole"], vectors["mocov3_loss_per_rank"].mean())
        close(ours["grad"], vectors["mocov3_grad_q_per_rank"][number])
        close(ours["codes"], vectors["sinkhorn_Q"][number])
        close(ours["dino_loss"], vectors["dino_loss_per_rank"][number])
        close(ours["center"], vectors["dino_center_after"][0])
