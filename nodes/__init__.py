"""The nodes, in ComfyUI's V3 schema. Each is a shell around one call of the engine in `pit`."""
from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .adapter import ApplyTokens
from .bridge import register_model_folders
from .concepts import BlendConcepts, LabelledStrip, PartWeight, PickConcepts
from .datasets import CreatureDataset, DatasetPrompts, LoadDataset, MakeParts
from .demo import CreatureKinds, CreatureParts, LoadCreatureModels
from .direction_edit import CombineDirections, DirectionEdit, LoadDirection, SaveDirection
from .directions import FindDirection
from .loading import LoadIPAdapter, LoadIPPrior
from .lora import ApplyIPLora, IPLoraPrompt
from .lora_training import TrainIPLora
from .measure import MeasureCreatures
from .parts import CutOutPart, EncodeImage, EncodeParts
from .preview import MakeTrainingPreview
from .prior import SamplePrior
from .token_library import BatchConcepts, LoadTokens, SaveTokens, TokenArithmetic
from .training import EncodeDataset, TrainPrior


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
