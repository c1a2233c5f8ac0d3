"""Piece it Together as nodes."""
from __future__ import annotations

from .apply_tokens import ApplyTokens
from .concepts import BlendConcepts, LabelledStrip, PartWeight, PickConcepts
from .datasets import DatasetPrompts, LoadDataset, MakeParts
from .directions import CombineDirections, DirectionEdit, LoadDirection, SaveDirection
from .find_direction import DirectionBetween, FindDirection
from .ip_lora import ApplyIPLora, IPLoraPrompt
from .latent import EmptyLatent
from .layer_weights import MakeLayerWeights
from .loading import LoadIPAdapter, LoadIPPrior
from .part_sets import LoadPartSets
from .parts import CutOutPart, EncodeImage, EncodeParts
from .prior import SamplePrior
from .tokens import BatchConcepts, LoadTokens, SaveTokens, TokenArithmetic
from .train_ip_lora import TrainIPLora
from .train_prior import EncodeDataset, TrainPrior
from .training_preview import MakeTrainingPreview

NODES = (
    LoadIPAdapter, LoadIPPrior, CutOutPart, LoadPartSets, EncodeParts, EncodeImage, SamplePrior, ApplyTokens,
    EmptyLatent, MakeLayerWeights, PartWeight, BlendConcepts, PickConcepts,
    FindDirection, DirectionBetween, DirectionEdit, CombineDirections, LoadDirection, SaveDirection,
    LabelledStrip,
    SaveTokens, LoadTokens, TokenArithmetic, BatchConcepts,
    ApplyIPLora, IPLoraPrompt,
    MakeParts, LoadDataset, DatasetPrompts, EncodeDataset, TrainPrior, MakeTrainingPreview, TrainIPLora,
)
