"""The nodes, in ComfyUI's V3 schema. Each is a shell around one call of the engine in `pit`."""
from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .bridge.folders import register_model_folders
from .creatures.measure import MeasureCreatures
from .creatures.models import CreatureKinds, CreatureParts, LoadCreatureModels
from .piece_it_together.apply_tokens import ApplyTokens
from .piece_it_together.concepts import BlendConcepts, LabelledStrip, PartWeight, PickConcepts
from .piece_it_together.datasets import CreatureDataset, DatasetPrompts, LoadDataset, MakeParts
from .piece_it_together.directions import CombineDirections, DirectionEdit, LoadDirection, SaveDirection
from .piece_it_together.find_direction import FindDirection
from .piece_it_together.ip_lora import ApplyIPLora, IPLoraPrompt
from .piece_it_together.loading import LoadIPAdapter, LoadIPPrior
from .piece_it_together.parts import CutOutPart, EncodeImage, EncodeParts
from .piece_it_together.prior import SamplePrior
from .piece_it_together.tokens import BatchConcepts, LoadTokens, SaveTokens, TokenArithmetic
from .piece_it_together.train_ip_lora import TrainIPLora
from .piece_it_together.train_prior import EncodeDataset, TrainPrior
from .piece_it_together.training_preview import MakeTrainingPreview


class PieceItTogether(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadIPAdapter, LoadIPPrior, LoadCreatureModels, CreatureParts,
            CutOutPart, EncodeParts, EncodeImage, SamplePrior, ApplyTokens,
            PartWeight, BlendConcepts, PickConcepts,
            FindDirection, DirectionEdit, CombineDirections, LoadDirection, SaveDirection, LabelledStrip,
            SaveTokens, LoadTokens, TokenArithmetic, BatchConcepts, CreatureKinds,
            ApplyIPLora, IPLoraPrompt,
            MeasureCreatures,
            MakeParts, LoadDataset, CreatureDataset, DatasetPrompts, EncodeDataset, TrainPrior,
            MakeTrainingPreview, TrainIPLora,
        ]
