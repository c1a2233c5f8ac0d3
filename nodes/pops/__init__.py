"""pOps as nodes."""
from __future__ import annotations

from .decoding import KandinskyConditioning, LoadKandinskyDecoder
from .embeddings import EncodeEmbedding, LoadEmbedding, SaveEmbedding
from .loading import LoadOperator
from .operators import Combine, Compose, Instruct
from .prompts import OperatorPrompts
from .tokens import EmbeddingToTokens, LoadBaseIPAdapter
from .train import TrainOperator

NODES = (
    LoadOperator, EncodeEmbedding, Combine, Instruct, Compose, SaveEmbedding, LoadEmbedding,
    LoadBaseIPAdapter, EmbeddingToTokens, LoadKandinskyDecoder, KandinskyConditioning, TrainOperator,
    OperatorPrompts,
)
