"""Low-rank Multimodal Fusion.

Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018,
https://arxiv.org/abs/1806.00064, section 3 (sub-networks as in TFN, Zadeh et al. 2017, section 4.1).
Differs from the field's reference package: fusion weights and bias are trained (there they are in no parameter group),
audio and vision are averaged over real steps only, and the text dropout is active.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from moodal.batch import Batch
from moodal.models.base import FusionModel, Output
from moodal.models.encoders import subnet
from moodal.models.fusion import LowRankFusion
from moodal.types import Task


class LMF(FusionModel):
    """Unimodal sub-networks and low-rank fusion of their outputs straight into the classes."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_hidden: int = 64,
        audio_hidden: int = 16,
        vision_hidden: int = 64,
        rank: int = 4,
        dropout: float = 0.2,
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, **inputs)
        widths = {"text": text_hidden, "audio": audio_hidden, "vision": vision_hidden}
        outs = {m: widths[m] // 2 if self.pooling[m] == "none" else widths[m] for m in self.modalities}
        self.subnets = nn.ModuleDict(
            {m: subnet(self.pooling[m], self.dims[m], widths[m], outs[m], dropout) for m in self.modalities}
        )
        self.fusion = LowRankFusion(len(outs), list(outs.values()), task.num_outputs, rank)

    def fuse(self, batch: Batch) -> Output:
        h = {m: self.subnets[m](batch.inputs[m]) for m in self.modalities}
        return Output(self.fusion([h[m] for m in self.modalities]), h)
