"""The chain of the creature models as graphs of help pictures have it, with the recommended settings."""

from __future__ import annotations

from typing import Any

from dev.help_pictures.graph import Graph, Node

SEED = 7  # of the creature whose parts most pictures begin with
GIVEN = ("horns", "wings", "tail")
CFG, TEXT_CFG, GUIDANCE, STEPS = 2.0, 3.0, 2.5, 25
NATIVE = 256  # pixels
PROMPT = "a creature"
CHOICES = ("body", "eyes", "mouth", "horns", "ears", "wings", "arms", "legs", "tail")

Link = Node | list[Any]


class Creatures:
    """The models in a graph, and the steps from parts to pictures."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.models = graph.add("PiT_LoadCreatureModels")
        self.encoders = {"clip_vision": self.models["CLIP_VISION"], "ip_adapter": self.models["ip_adapter"]}

    def parts(self, *parts: str, seed: int = SEED, **more: Any) -> Node:
        """Parts of a creature; those of the templates if none are named."""
        chosen = {part: part in (parts or GIVEN) for part in CHOICES}
        return self.graph.add("PiT_CreatureParts", seed=seed, **chosen, **more)

    def example(self, name: str) -> Node:
        return self.graph.add("PiT_ExamplePictures", pictures=name)

    def encode(self, pictures: Link, **more: Any) -> Node:
        """Parts for the prior."""
        settings = {"placement": "centred"} | more
        return self.graph.add("PiT_EncodeParts", parts__part0=pictures, **self.encoders, **settings)

    def sample(self, parts: Link, count: int = 1, seed: int = 0, **more: Any) -> Node:
        """Concepts of encoded parts."""
        settings = {"prior": self.models["prior"], "guidance": GUIDANCE, "steps": STEPS} | more
        return self.graph.add("PiT_SamplePrior", parts=parts, concepts=count, seed=seed, **settings)

    def concepts(self, count: int = 1, seed: int = 0) -> Node:
        """Concepts of the parts that most pictures begin with."""
        return self.sample(self.encode(self.parts()), count, seed)

    def image_tokens(self, pictures: Link) -> Node:
        return self.graph.add("PiT_EncodeImage", image=pictures, **self.encoders)

    def saved(self, species: str) -> Node:
        """The concept of a species that comes with the pack."""
        return self.graph.add("PiT_LoadTokens", file=f"creature models: {species}")

    def apply(self, tokens: Link, model: Link | None = None, **more: Any) -> Node:
        """The model that renders tokens."""
        settings = {"ip_adapter": self.models["ip_adapter"]} | more
        return self.graph.add(
            "PiT_ApplyTokens", model=model or self.models["MODEL"], tokens=tokens, **settings
        )

    def draw(
        self, tokens: Link, prompt: str | Link = PROMPT, same: bool = False, percent: int = 100,
        seed: int = 0, model: Link | None = None, images: int = 1, **more: Any,
    ) -> Node:
        """Pictures of tokens.

        Args:
            same: all begin with the same noise.
            model: applies tokens already.
            more: for Apply IP+ Tokens.
        """
        graph, patched = self.graph, model or self.apply(tokens, **more)
        latent = graph.add(
            "PiT_EmptyLatent", model=self.models["MODEL"], tokens=tokens, percent=percent,
            images_per_concept=images,
        )
        if same:
            latent = graph.add("LatentBatchSeedBehavior", samples=latent, seed_behavior="fixed")
        sampler = "euler" if same else "euler_ancestral"
        return self.rendered(patched, latent, prompt, seed, sampler, cfg=CFG)

    def rendered(
        self, model: Link, latent: Link, prompt: str | Link, seed: int = 0, sampler: str = "euler",
        clip: Link | None = None, cfg: float = TEXT_CFG,
    ) -> Node:
        """Pictures of a model, with words of the models' own text encoder or of `clip`."""
        graph, clip = self.graph, clip or self.models["CLIP"]
        positive = graph.add("CLIPTextEncode", clip=clip, text=prompt)
        negative = graph.add("CLIPTextEncode", clip=clip, text="")
        samples = graph.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=latent, seed=seed,
            steps=STEPS, cfg=cfg, sampler_name=sampler, scheduler="normal", denoise=1.0,
        )
        return graph.add("VAEDecode", samples=samples, vae=self.models["VAE"])
