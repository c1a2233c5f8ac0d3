"""The names that `pit` offers, from the rooms that they live in."""
# ruff: noqa: F401
from .concepts.directions import apply_direction, find_direction
from .files.lora import convert_lora
from .files.weights import CheckpointError, WeightFileError
from .flow.path import velocity_loss
from .images import clip_pixel_values
from .ip_adapter.attention import IPAdapterPlus
from .ip_adapter.files import load_ip_adapter
from .ip_adapter.resampler import Resampler
from .object_insertion.embedding_optimizer import EmbeddingOptimizer
from .object_insertion.files import load_embedding_optimizer
from .partcraft.files import load_part_words
from .piece_it_together.prior import IPPrior
from .piece_it_together.prior_files import load_prior
from .piece_it_together.sample import sample_prior
from .pops.files import load_operator
from .pops.sample import sample_operator
