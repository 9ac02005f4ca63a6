"""A plain verdict on a run: healthy, doubtful or collapsed, with the number, and what to try."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_jsonable_python

from similitude.evaluation.readings import Readings, State
from similitude.evaluation.verdict_rules import RULES

__all__ = ["Readings", "State", "Verdict", "diagnose"]


@dataclass(frozen=True)
class Verdict:
    """The state of a run, each reason with its number, and what to try."""

    state: State
    reasons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    readings: Readings = field(default_factory=Readings)

    @property
    def sentence(self) -> str:
        """The verdict in one line: "Collapsed: the representation is constant (...)."."""
        text = "; ".join(reason.rstrip(".") for reason in self.reasons)
        return f"{self.state.capitalize()}: {text}." if text else f"{self.state.capitalize()}."

    def to_json(self) -> dict[str, Any]:
        """As stored in a run folder's health.json; a number that is not finite becomes null."""
        return to_jsonable_python(self, inf_nan_mode="null")


# What the rules say of images and does not hold for other samples.
_OF_IMAGES = {
    "Start from published weights (--init), or train longer.": "Train longer.",
    " (milder crops and color changes)": "",
    ": crops, flips, color": "",
}


def diagnose(readings: Readings, nouns: str = "images", raw: str = "raw pixels") -> Verdict:
    """Apply every rule; the worst finding gives the state.

    Args:
        readings: What was measured; more readings can only add findings, except that a rule for
            a mild form is silent when the severe form has fired.
        nouns: What several samples are called.
        raw: What their plain numbers are called.

    Returns:
        The verdict. Reasons and advice of the worst findings come first. A healthy run gets the
        numbers that say so as its reasons.
    """
    findings = [finding for rule in RULES for finding in rule(readings)]
    findings.sort(key=lambda finding: finding.state != "collapsed")
    state: State = findings[0].state if findings else "healthy"
    reasons = [finding.reason for finding in findings] or _good_signs(readings)
    advice = list(dict.fromkeys(finding.advice for finding in findings))

    def said(sentences: list[str]) -> list[str]:  # the rules speak of images
        if nouns != "images":
            for of_images, other in _OF_IMAGES.items():
                sentences = [sentence.replace(of_images, other) for sentence in sentences]
        of_one = nouns.removesuffix("s")
        article = "an" if of_one[0] in "aeiou" else "a"
        with_article = [re.sub(r"\ban image\b", f"{article} {of_one}", s) for s in sentences]
        named = [re.sub(r"\bimage(s?)\b", rf"{of_one}\1", sentence) for sentence in with_article]
        return [sentence.replace("raw pixels", raw) for sentence in named]

    return Verdict(state, said(reasons), said(advice), readings)


def _good_signs(r: Readings) -> list[str]:
    signs = []
    if r.feature_std is not None and r.feature_dim is not None:
        relative = r.feature_std * math.sqrt(r.feature_dim)
        signs.append(f"The features of different images differ (std {relative:.2f} of 1/sqrt(D)).")
    if r.effective_rank is not None:
        signs.append(f"They use {r.effective_rank:.1f} directions (effective rank).")
    if r.loss is not None and r.chance_loss is not None:
        signs.append(f"The loss is {r.loss:.3f}, below the {r.chance_loss:.3f} of chance.")
    if r.knn is not None and r.knn_random is not None:
        before = "random weights give" if r.drift is None else "its start gives"
        signs.append(f"kNN accuracy is {100 * r.knn:.1f} %, {before} {100 * r.knn_random:.1f} %.")
    return signs
