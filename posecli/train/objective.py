"""The training loss of a pose model."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.train.batches import Batch, normalise
from posecli.train.loss import box_loss_sum, distillation_sum, kl_sums, person_score_sum
from posecli.train.recipe import Recipe
from posecli.train.teacher import Teacher


class HeadsOnly(nn.Module):
    """A pose model of which only the person score and the box head get gradients."""

    def __init__(self, model: SimCC) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Normalised crops (N, 3, H, W) → person score logits (N,), and sides (N, 4) where there is a box head."""
        return self.model.heads(crops)


@dataclass(frozen=True)
class PoseLoss:
    """The losses of a part of a batch by name, each normalised over the whole batch of all processes.

    "keypoints": KL divergence of the labels, a mean by the labels' weights. "teacher": KL divergence from the teacher's
    distributions, a mean over samples and keypoints, also of people without labels. "person_score", "box": of the two
    heads, means over samples.
    """

    recipe: Recipe
    config: PoseConfig
    device: torch.device
    teacher: Teacher | None = None

    def __call__(self, network: nn.Module, part: Batch) -> Mapping[str, Tensor]:
        """The losses. network: gives x and y logits and the heads' outputs; the latter only with recipe.heads_only."""
        recipe = self.recipe
        crops = normalise(part.crops, self.config, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            outputs = network(crops)
        if recipe.heads_only:
            return self._heads(outputs, part)
        return {**self._keypoints(outputs, part), **self._heads(outputs[2:], part)}

    def _keypoints(self, outputs: tuple[Tensor, ...], part: Batch) -> dict[str, Tensor]:
        config = self.config
        located = outputs[0], outputs[1]
        total, _ = kl_sums(
            located,
            part.points.to(self.device),
            part.weights.to(self.device),
            split_ratio=config.split_ratio,
            sigma=config.sigma,
            temperature=config.temperature,
            label_smoothing=self.recipe.label_smoothing,
        )
        losses = {"keypoints": total / part.weight_sum.to(self.device).clamp_min(1e-6)}
        if self.teacher is not None:
            taught = self.teacher.distributions(part, self.device)
            temperatures = config.temperature, self.teacher.config.temperature
            weights = part.taught.to(self.device)
            distance = distillation_sum(located, taught, temperatures, weights, self.teacher.places(config))
            losses["teacher"] = self.recipe.teacher_weight / (part.samples * len(config.keypoints)) * distance
        return losses

    def _heads(self, outputs: tuple[Tensor, ...], part: Batch) -> dict[str, Tensor]:
        recipe, losses = self.recipe, {}
        if self.config.person_score and recipe.negatives_share:
            value = person_score_sum(outputs[0], part.present.to(self.device), recipe.negatives_share)
            losses["person_score"] = recipe.person_score_weight * value / part.samples
        if self.config.box_head:
            value = box_loss_sum(outputs[1], part.sides.to(self.device), part.sides_weights.to(self.device))
            losses["box"] = recipe.box_weight * value / part.samples
        return losses
