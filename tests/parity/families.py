"""What each family of reference vectors is a test of: the rows of docs/parity.md."""

from typing import NamedTuple


class Family(NamedTuple):
    """One family of files: NAME_a.npz, NAME_b.npz, ..."""

    what: str  # methods or parts of the library
    formula: str
    source: str  # code that was executed, and its revision


MOCO = "facebookresearch/moco 7397dfe"
NOTEBOOK = "facebookresearch/moco, CIFAR notebook f736491"
MOCO_V3 = "facebookresearch/moco-v3 c349e6e"
SIMCLR = "google-research/simclr 383d414"
BYOL = "google-deepmind/deepmind-research (byol) f5de0ed"
SIMSIAM = "facebookresearch/simsiam a7bc177"
BARLOW = "facebookresearch/barlowtwins 8e8d284"
SWAV = "facebookresearch/swav 06b1b7c"
DINO = "facebookresearch/dino 7c446df"
INST_DISC = "zhirongw/lemniscate.pytorch f7cfe29"
INVA_SPREAD = "mangye16/Unsupervised_Embedding_Learning 29de398"
CMC = "HobbitLong/CMC 7b227be"
GIM = "loeweX/Greedy_InfoMax 22d17e4"
CPC_V2 = "pseudo-code in the appendix of arXiv:1905.09272"
APEX = "NVIDIA/apex b6f5ee3"

FAMILIES = {
    "barlow_heads": Family("barlow_twins", "layers of the projector", BARLOW),
    "barlow_loss": Family(
        "barlow_twins", "sum (1 - C_ii)^2 + weight * sum C_ij^2, and gradients", BARLOW
    ),
    "byol_loss": Family("byol", "mean of (2 - 2 cos) over both directions, and gradients", BYOL),
    "byol_schedule": Family("byol", "decay of the target, learning rate, the target's path", BYOL),
    "cmc_nce": Family("cmc", "NCE with one constant Z per direction, banks, gradients", CMC),
    "cmc_softmax": Family("cmc", "cross-entropy over 1 + K rows of the banks", CMC),
    "cpc_infonce_sampled": Family("cpc_v1", "InfoNCE with drawn negatives, per step k", GIM),
    "cpcv2_infonce": Family("cpc_v2", "InfoNCE over all targets of the batch", CPC_V2),
    "dino_clip": Family("dino", "gradients clipped per parameter; last layer frozen", DINO),
    "dino_head": Family("dino", "the head: output and which weights are trained", DINO),
    "dino_loss": Family("dino", "cross-entropy over pairs of views, center, gradients", DINO),
    "dino_param_groups": Family("dino", "which tensors decay", DINO),
    "ema": Family("moco, byol, dino, ...", "target <- d target + (1 - d) online", MOCO_V3),
    "instdisc_nce": Family("inst_disc", "NCE with constant Z, bank, gradients", INST_DISC),
    "instdisc_softmax": Family("inst_disc", "softmax over the whole bank", INST_DISC),
    "invaspread_loss": Family("inva_spread", "log-likelihood with key factor fixed", INVA_SPREAD),
    "knn": Family("evaluation", "votes exp(cosine / T) of the k nearest", f"{NOTEBOOK}; {DINO}"),
    "larc_sgd_clip": Family("optimizers.LARC", "five steps, clipping mode", APEX),
    "larc_sgd_scale": Family("optimizers.LARC", "five steps, scaling mode (SwAV)", APEX),
    "lars": Family("optimizers.LARS", "five steps; 1-D tensors excluded", BARLOW),
    "lars_no_exclusions": Family("optimizers.LARS", "five steps; nothing excluded", BARLOW),
    "lars_simclr_classic_momentum": Family("optimizers.LARS", "rate inside the buffer", SIMCLR),
    "lars_simclr_popular_momentum": Family("optimizers.LARS", "ratio from the buffer", SIMCLR),
    "memory_bank_softmax": Family("memory_bank", "cross-entropy over 1 + K rows, bank", CMC),
    "moco_cifar_asym": Family("moco_v1", "loss and queue, one direction", NOTEBOOK),
    "moco_cifar_sym": Family("moco_v1", "loss and queue, both directions", NOTEBOOK),
    "moco_infonce": Family("moco_v1, moco_v2", "InfoNCE against the queue, gradients", MOCO),
    "moco_steps": Family("moco_v1", "whole training steps: weights, keys, queue", MOCO),
    "mocov3_heads": Family("moco_v3", "layers of projector and predictor", MOCO_V3),
    "mocov3_loss": Family("moco_v3", "2 t * InfoNCE, both directions, gradients", MOCO_V3),
    "mocov3_posembed": Family("moco_v3", "fixed sine-cosine positions", MOCO_V3),
    "ntxent": Family("simclr", "NT-Xent, mean over 2N, and gradients", SIMCLR),
    "schedules": Family("schedules", "rates, decays and weight decays of nine codes", "all above"),
    "simclrv2_distill": Family("simclr_v2", "CE(teacher / t, student / t)", SIMCLR),
    "simsiam_loss": Family("simsiam", "negative cosine, both directions, gradients", SIMSIAM),
    "simsiam_steps": Family("simsiam", "whole training steps: every weight and buffer", SIMSIAM),
    "split_batchnorm": Family("nets.SplitBatchNorm2d", "outputs, running statistics", NOTEBOOK),
    "swav_loss": Family("swav", "swapped prediction, prototypes, queue, gradients", SWAV),
    "swav_sinkhorn": Family("swav", "Sinkhorn iterations", SWAV),
    "two_ranks": Family(
        "moco_v1, moco_v3, swav, dino", "two real processes", f"{MOCO}; {MOCO_V3}; {SWAV}; {DINO}"
    ),
}
