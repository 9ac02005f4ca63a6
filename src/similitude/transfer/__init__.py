"""From a pretrained run to a classifier: fine-tuning on few labels, distillation on images."""

from similitude.transfer.classifier import Classifier, Predictions, is_classifier
from similitude.transfer.data import draw_labels
from similitude.transfer.network import ClassifierNetwork, build_network
from similitude.transfer.recipes import DistillRecipe, FinetuneRecipe, TransferRecipe
from similitude.transfer.stages import distill, finetune

__all__ = [
    "Classifier",
    "ClassifierNetwork",
    "DistillRecipe",
    "FinetuneRecipe",
    "Predictions",
    "TransferRecipe",
    "build_network",
    "distill",
    "draw_labels",
    "finetune",
    "is_classifier",
]
