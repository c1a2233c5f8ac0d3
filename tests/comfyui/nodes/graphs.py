"""Graphs in ComfyUI's API format, made of the pack's nodes and those of `tiny`."""

from __future__ import annotations


def node(class_type: str, **inputs) -> dict:
    """A dot in a name, as dynamic inputs have it, is written as two underscores."""
    inputs = {name.replace("__", "."): value for name, value in inputs.items()}
    return {"class_type": class_type, "inputs": inputs}


def encode_graph(**changes) -> dict:
    """Two pictures as parts, encoded."""
    graph = {
        "tiny": node("Tiny_Models", vision_width=64),
        "adapter": node("PiT_LoadIPAdapter", file="tiny.safetensors"),
        "picture": node("Tiny_Image", count=2, height=40, width=30, channels=3),
        "parts": node(
            "PiT_EncodeParts", clip_vision=["tiny", 3], ip_adapter=["adapter", 0],
            parts__part0=["picture", 0], placement="random", seed=0, sketch=0.0, reference_slot=False,
            min_slots=3,
        ),
        "loaded": node("Tiny_Loaded", after=["parts", 0]),
    }
    return changed(graph, changes)


def sample_graph(**changes) -> dict:
    """The same, then the IP-Prior."""
    graph = encode_graph() | {
        "prior": node("PiT_LoadIPPrior", file="characters/prior.ckpt", num_heads=0),
        "sample": node(
            "PiT_SamplePrior", prior=["prior", 0], parts=["parts", 0], seed=0, concepts=3, steps=4,
            guidance=2.0, solver="euler", strength=0.6,
        ),
        "loaded": node("Tiny_Loaded", after=["sample", 0]),
    }
    return changed(graph, changes)


def render_graph(**changes) -> dict:
    """The same, then SDXL up to the latents."""
    graph = sample_graph() | {
        "apply": node(
            "PiT_ApplyTokens", model=["tiny", 0], ip_adapter=["adapter", 0], tokens=["sample", 0], weight=1.0,
            start=0.0, end=1.0, negative="grey picture",
        ),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=3),
        "sampler": node(
            "KSampler", model=["apply", 0], positive=["tiny", 1], negative=["tiny", 2],
            latent_image=["latent", 0], seed=0, steps=2, cfg=5.0, sampler_name="euler", scheduler="normal",
            denoise=1.0,
        ),
        "loaded": node("Tiny_Loaded", after=["sampler", 0]),
        "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="concepts"),
    }
    return changed(graph, changes)


def training_graph(**changes) -> dict:
    """A few drawn creatures, encoded; a small prior trained on them; a concept sampled with it."""
    graph = {
        "models": node("PiT_LoadCreatureModels"),
        "dataset": node("PiT_CreatureDataset", count=12, coherence=0.3, seed=0, name="few"),
        "tokens": node(
            "PiT_EncodeDataset", clip_vision=["models", 3], ip_adapter=["models", 4],
            dataset=["dataset", 0], name="few", variants=1, sketch_probability=0.0, references=0, seed=0,
        ),
        "train": node(
            "PiT_TrainPrior", tokens=["tokens", 0], name="few", preset="recommended", steps=30, batch=4,
            learning_rate=0.0, start_from="nothing", save_every=10, seed=0, hidden_dim=32, layers=1, heads=2,
        ),
        "picture": node("Tiny_Image", count=2, height=40, width=30, channels=3),
        "parts": node(
            "PiT_EncodeParts", clip_vision=["models", 3], ip_adapter=["models", 4],
            parts__part0=["picture", 0], placement="random", seed=0, sketch=0.0, reference_slot=False,
            min_slots=3,
        ),
        "sample": node(
            "PiT_SamplePrior", prior=["train", 0], parts=["parts", 0], seed=0, concepts=2, steps=2,
            guidance=2.0, solver="euler", strength=0.6,
        ),
        "loaded": node("Tiny_Loaded", after=["sample", 0]),
    }
    return changed(graph, changes)


def preview_graph(**changes) -> dict:
    """The same, with samples drawn while it trains."""
    graph = training_graph() | {
        "words": node("CLIPTextEncode", clip=["models", 1], text="a creature"),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "preview": node(
            "PiT_TrainingPreview", model=["models", 0], vae=["models", 2], ip_adapter=["models", 4],
            positive=["words", 0], negative=["words", 0], latent=["latent", 0], parts=["parts", 0], seed=0,
            steps=2, cfg=2.0, guidance=2.0,
        ),
    }
    graph["train"]["inputs"] |= {"preview": ["preview", 0], "name": "seen"}
    return changed(graph, changes)


def changed(graph: dict, changes: dict) -> dict:
    """Nodes replaced, or single inputs as `node__input`."""
    for name, value in changes.items():
        if isinstance(value, dict):
            graph[name] = value
        else:
            owner, _, field = name.partition("__")
            graph[owner]["inputs"][field.replace("__", ".")] = value
    return graph
