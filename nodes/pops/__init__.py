"""pOps as nodes."""
from __future__ import annotations

from .embeddings import EncodeEmbedding, LoadEmbedding, SaveEmbedding
from .loading import LoadOperator
from .operators import Combine, Compose, Instruct

NODES = (LoadOperator, EncodeEmbedding, Combine, Instruct, Compose, SaveEmbedding, LoadEmbedding)
