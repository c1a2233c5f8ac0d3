"""The diffusion prior behind every pOps operator: condition tokens in, an image embedding out.

The architecture is that of the prior of Kandinsky 2.2, a transformer as in DALL-E 2 (arXiv 2204.06125,
section 2.2). pOps (arXiv 2406.01300) puts embeddings of pictures where the tokens of a text were.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# What follows the slots of the condition: a projected embedding that pOps leaves at zero, the time, the noisy
# embedding, and a learned token from which the prediction is read.
EXTRA_TOKENS = 4
MOST_FREQUENCY = 10000.0

KeysValues = tuple[Tensor, Tensor]


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps 0..999: `t [B]` -> `[B, width]` float32, cosines first."""
    half = width // 2
    frequencies = torch.exp(-math.log(MOST_FREQUENCY) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """`t [B]` -> `[B, hidden]`."""

    def __init__(self, hidden_dim: int, operations, **factory):
        super().__init__()
        self.width = hidden_dim
        self.linear_1 = operations.Linear(hidden_dim, hidden_dim, **factory)
        self.linear_2 = operations.Linear(hidden_dim, hidden_dim, **factory)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(time_embedding(t, self.width).to(dtype))))


class Attention(nn.Module):
    """Attention whose keys and values may come from tokens of earlier calls as well."""

    def __init__(self, dim: int, num_heads: int, operations, **factory):
        super().__init__()
        self.num_heads = num_heads
        self.to_q = operations.Linear(dim, dim, **factory)
        self.to_k = operations.Linear(dim, dim, **factory)
        self.to_v = operations.Linear(dim, dim, **factory)
        self.to_out = nn.ModuleList([operations.Linear(dim, dim, **factory)])

    def keys_values(self, x: Tensor) -> KeysValues:
        """`[B, N, C]` -> keys and values `[B, heads, N, C / heads]`."""
        return self._heads(self.to_k(x)), self._heads(self.to_v(x))

    def forward(self, x: Tensor, known: KeysValues, mask: Tensor | None) -> Tensor:
        attended = functional.scaled_dot_product_attention(self._heads(self.to_q(x)), *known, mask)
        return self.to_out[0](attended.transpose(1, 2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class ProjectedGELU(nn.Module):
    """A projection and the exact GELU."""

    def __init__(self, dim: int, width: int, operations, **factory):
        super().__init__()
        self.proj = operations.Linear(dim, width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.proj(x))


class FeedForward(nn.Module):
    """Two layers; the published list has a dropout between them, which keeps its place in the keys."""

    def __init__(self, dim: int, width: int, operations, **factory):
        super().__init__()
        self.net = nn.Sequential(
            ProjectedGELU(dim, width, operations, **factory),
            nn.Identity(),
            operations.Linear(width, dim, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    """Attention and feed-forward, each after a layer norm and added to its input."""

    def __init__(self, dim: int, num_heads: int, width: int, operations, **factory):
        super().__init__()
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.attn1 = Attention(dim, num_heads, operations, **factory)
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.ff = FeedForward(dim, width, operations, **factory)

    def forward(
        self, x: Tensor, mask: Tensor | None, before: Sequence[KeysValues] = (), outputs: int | None = None
    ) -> tuple[Tensor, KeysValues]:
        """The last `outputs` tokens (None = all, 0 = none), and the keys and values of all given tokens.

        Args:
            x: `[B, N, C]`, which attends to itself and to what stands before it.
            mask: which of the keys each output sees, those of `before` first; None = all.
        """
        normed = self.norm1(x)
        own = self.attn1.keys_values(normed)
        first = 0 if outputs is None else x.shape[1] - outputs
        # Contiguous: for other rows of bfloat16, torch copies the weights of each linear layer row by row.
        x, queries = x[:, first:].contiguous(), normed[:, first:].contiguous()
        if x.shape[1]:
            parts = zip(*before, own, strict=True)
            x = x + self.attn1(queries, tuple(torch.cat(part, dim=2) for part in parts), mask)
            x = x + self.ff(self.norm3(x))
        return x, own


def visible(mask: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Which token sees which: each sees itself and what stands before it, unless `mask [B, n]` hides that.

    Returns:
        `[length, length]`, or `[B, 1, length, length]` with a mask over the first n tokens.
    """
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if mask is None:
        return earlier
    shown = functional.pad(mask, (0, length - mask.shape[1]), value=True)
    # Hidden tokens see themselves, since attention to nothing is not a number. Nobody reads what they become.
    itself = torch.eye(length, dtype=torch.bool, device=device)
    return (earlier & shown[:, None] | itself)[:, None]


class PriorTransformer(nn.Module):
    """Predicts the clean image embedding, in normalized space, from a noisy one, the time and a condition.

    State-dict keys are those of the published files, with the statistics `clip_mean` and `clip_std`.

    Attributes:
        gradient_checkpointing: in training, compute each layer a second time instead of keeping its
            activations.
    """

    gradient_checkpointing = False

    def __init__(
        self, embedding_dim: int = 1280, hidden_dim: int = 2048, num_layers: int = 20, num_heads: int = 32,
        operations=nn, *, feed_forward_dim: int | None = None, num_slots: int = 77, device=None, dtype=None,
    ):
        """
        Args:
            embedding_dim: width E of image embeddings and of condition tokens.
            hidden_dim: width of the transformer, a multiple of num_heads.
            operations: namespace of `Linear` and `LayerNorm` (ComfyUI's casting layers work too).
            feed_forward_dim: by default four times hidden_dim.
            num_slots: the most tokens that a condition may have.
        Raises:
            ValueError: hidden_dim cannot be split into num_heads.
        """
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(f"Expected a hidden_dim that splits into {num_heads} heads, got {hidden_dim}.")
        factory = {"device": device, "dtype": dtype}
        self.embedding_dim, self.num_slots = embedding_dim, num_slots
        length, width = num_slots + EXTRA_TOKENS, feed_forward_dim or 4 * hidden_dim
        self.positional_embedding = nn.Parameter(torch.zeros(1, length, hidden_dim, **factory))
        self.prd_embedding = nn.Parameter(torch.zeros(1, 1, hidden_dim, **factory))
        self.clip_mean = nn.Parameter(torch.zeros(1, embedding_dim, **factory))
        self.clip_std = nn.Parameter(torch.ones(1, embedding_dim, **factory))
        self.time_embedding = TimeEmbedding(hidden_dim, operations, **factory)
        self.proj_in = operations.Linear(embedding_dim, hidden_dim, **factory)
        self.embedding_proj = operations.Linear(embedding_dim, hidden_dim, **factory)
        self.encoder_hidden_states_proj = operations.Linear(embedding_dim, hidden_dim, **factory)
        self.transformer_blocks = nn.ModuleList(
            Block(hidden_dim, num_heads, width, operations, **factory) for _ in range(num_layers)
        )
        self.norm_out = operations.LayerNorm(hidden_dim, **factory)
        self.proj_to_clip_embeddings = operations.Linear(hidden_dim, embedding_dim, **factory)

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor, mask: Tensor | None = None, *,
        proj: Tensor | None = None, causal: bool = True,
    ) -> Tensor:
        """The clean embedding in normalized space.

        Args:
            x: noisy embedding in normalized space `[B, E]`.
            t: timesteps 0..999, `[B]`, or one for all rows.
            condition: `[B, n, E]`, the first n slots; the others may be left out, for nothing sees them.
            mask: `[B, n]`, False for slots that a row does not have; None = all are seen.
            proj: the extra embedding `[B, E]`, which pOps leaves at zero.
            causal: False lets every token see every other, as the published network does without any mask.
        Returns:
            `[B, E]`.
        Raises:
            ValueError: there are more slots than the prior has, or shapes do not fit.
        """
        self.check_condition(condition, mask)
        if mask is not None:
            condition, mask = without_unused_slots(condition, mask)
        proj = torch.zeros_like(x) if proj is None else proj
        t = t.to(x.device).expand(len(x))
        extra = [self.embedding_proj(proj), self.time_embedding(t, x.dtype), self.proj_in(x)]
        extra.append(self.prd_embedding[:, 0].to(x).expand(len(x), -1))
        slots = self.encoder_hidden_states_proj(condition)
        tokens = torch.cat([slots, torch.stack(extra, dim=1)], dim=1)
        tokens = tokens + self.positions(slots.shape[1], EXTRA_TOKENS).to(tokens)
        seen = visible(mask, tokens.shape[1], tokens.device) if causal else None
        last = len(self.transformer_blocks) - 1
        for number, block in enumerate(self.transformer_blocks):
            # Only the last token of the last layer is read, so nothing else is computed there.
            outputs = 1 if number == last else None
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens, _ = checkpoint(block, tokens, rows(seen, outputs), (), outputs, use_reentrant=False)
            else:
                tokens, _ = block(tokens, rows(seen, outputs), outputs=outputs)
        return self.prediction(tokens[:, -1])

    def positions(self, slots: int, extra: int) -> Tensor:
        """Positional embedding of the first slots and of the first extra tokens, `[1, slots + extra, C]`."""
        first = self.num_slots
        table = self.positional_embedding
        return torch.cat([table[:, :slots], table[:, first:first + extra]], dim=1)

    def prediction(self, token: Tensor) -> Tensor:
        """The embedding `[B, E]` that is read from the last token `[B, C]`."""
        return self.proj_to_clip_embeddings(self.norm_out(token))

    def normalized(self, raw: Tensor) -> Tensor:
        """Embeddings `[..., E]` as an encoder gives them, in the space that the prior computes in."""
        mean, std = (each[0].to(raw.device, torch.float32) for each in (self.clip_mean, self.clip_std))
        return (raw.float() - mean) / std

    def raw(self, normalized: Tensor) -> Tensor:
        """The inverse of `normalized`."""
        device = normalized.device
        mean, std = (each[0].to(device, torch.float32) for each in (self.clip_mean, self.clip_std))
        return normalized.float() * std + mean

    def prepared(
        self, condition: Tensor, timesteps: Sequence[int], mask: Tensor | None = None
    ) -> PreparedPrior:
        """The prediction under a fixed condition at the given timesteps, for a sampler."""
        return PreparedPrior(self, condition, timesteps, mask)

    def check_condition(self, condition: Tensor, mask: Tensor | None) -> None:
        """Raise ValueError for a condition or a mask that the prior has no room for."""
        shape = list(condition.shape)
        if condition.ndim != 3 or not 1 <= shape[1] <= self.num_slots or shape[2] != self.embedding_dim:
            raise ValueError(
                f"Expected a condition of the shape [B, n, {self.embedding_dim}] with 1 to {self.num_slots} "
                f"slots, got {shape}. Use embeddings and words of the encoder that the operator was trained "
                "with, and fewer of them."
            )
        if mask is not None and mask.shape != condition.shape[:2]:
            raise ValueError(
                f"Expected a mask of the shape {shape[:2]}, one value for each slot, got {list(mask.shape)}."
            )


def rows(seen: Tensor | None, outputs: int | None) -> Tensor | None:
    """The rows of a mask that belong to the last `outputs` tokens; None = all."""
    return seen if seen is None or outputs is None else seen[..., -outputs:, :]


def without_unused_slots(condition: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Condition and mask, in truth values, without the slots at the end that no row has."""
    # At least one is kept, so that rows without any condition work as well.
    mask = mask.to(condition.device, torch.bool)
    used = mask.any(dim=0).nonzero()
    count = int(used[-1]) + 1 if len(used) else 1
    return condition[:, :count], mask[:, :count]


def distinct(condition: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """The different rows of conditions with their masks, and which of them each row is `[B]`."""
    shown = torch.ones_like(condition[..., 0], dtype=torch.bool) if mask is None else mask
    both = torch.cat([condition.float().flatten(1), shown.float()], dim=1)
    rows, places = both.unique(dim=0, return_inverse=True)
    values, shown = rows.split([rows.shape[1] - shown.shape[1], shown.shape[1]], dim=1)
    condition = values.unflatten(1, condition.shape[1:]).to(condition.dtype).contiguous()
    return condition, None if mask is None else shown.bool(), places


class PreparedPrior:
    """A prior with all that its steps share computed once; the predictions are those of `PriorTransformer`.

    A token only sees those before it, in the order condition, extra embedding, time, noisy embedding,
    prediction. So the keys and values of all but the last two follow from the condition and the time, and
    those of all times are computed in one pass, which reads the weights once. Each step computes two tokens.
    Rows that share a condition, such as several seeds or the empty ones of guidance, share this as well.
    """

    def __init__(
        self, prior: PriorTransformer, condition: Tensor, timesteps: Sequence[int], mask: Tensor | None = None
    ):
        prior.check_condition(condition, mask)
        if mask is not None:
            condition, mask = without_unused_slots(condition, mask)
        self.prior, self.dtype = prior, condition.dtype
        condition, mask, self.rows = distinct(condition, mask)
        self.place = {t: index for index, t in enumerate(dict.fromkeys(timesteps))}
        self.before = condition.shape[1] + 1
        seen = self._seen(mask, condition.device)
        tokens = self._known_tokens(condition)
        self.known: list[KeysValues] = []
        last = len(prior.transformer_blocks) - 1
        for number, block in enumerate(prior.transformer_blocks):
            tokens, keys_values = block(tokens, seen, outputs=0 if number == last else None)
            self.known.append(keys_values)
        # What the noisy embedding and the prediction see in a step: all that stands before them.
        step_seen = visible(mask, self.before + EXTRA_TOKENS - 1, condition.device)[..., -2:, :]
        self.step_seen = step_seen if mask is None else step_seen[self.rows]

    def _known_tokens(self, condition: Tensor) -> Tensor:
        """The embedded condition, the extra embedding and all times, `[B, n + 1 + S, C]`."""
        prior, times = self.prior, torch.tensor(list(self.place), device=condition.device)
        positions = prior.positions(condition.shape[1], 2).to(condition)
        nothing = torch.zeros_like(condition[:, :1])
        slots = prior.encoder_hidden_states_proj(condition)
        slots = torch.cat([slots, prior.embedding_proj(nothing)], dim=1) + positions[:, :-1]
        embedded = prior.time_embedding(times, condition.dtype) + positions[:, -1]
        return torch.cat([slots, embedded.expand(len(condition), -1, -1)], dim=1)

    def _seen(self, mask: Tensor | None, device: torch.device) -> Tensor:
        """Times see the condition and themselves, but not each other: they belong to different steps."""
        before, times = self.before, len(self.place)
        seen = visible(mask, before + times, device).clone()
        seen[..., before:, before:] = torch.eye(times, dtype=torch.bool, device=device)
        return seen

    def _known_at(self, place: int, known: KeysValues) -> KeysValues:
        """Keys and values of the condition and of one time, for all rows."""
        # Copied together for each step, since those of all times and rows would fill the memory.
        parts = ((each[:, :, :self.before], each[:, :, self.before + place, None]) for each in known)
        keys, values = (torch.cat(part, dim=2)[self.rows] for part in parts)
        return keys, values

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """The clean embedding `[B, E]` in the type of `x`, at one of the timesteps.

        `x [b, E]` may hold fewer rows than the condition, which is then for `x` several times over.
        """
        prior, place, count = self.prior, self.place[t], len(self.rows)
        noisy = prior.proj_in(x.to(self.dtype)).repeat(count // len(x), 1)
        token = prior.prd_embedding[:, 0].to(noisy).expand(count, -1)
        tokens = torch.stack([noisy, token], dim=1) + prior.positional_embedding[:, -2:].to(noisy)
        last = len(prior.transformer_blocks) - 1
        for number, block in enumerate(prior.transformer_blocks):
            before, outputs = [self._known_at(place, self.known[number])], 1 if number == last else None
            tokens, _ = block(tokens, rows(self.step_seen, outputs), before, outputs)
        return prior.prediction(tokens[:, -1]).to(x.dtype)
