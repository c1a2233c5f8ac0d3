"""ComfyUI and the pack, imported into this process on the CPU, for tests that look at tensors."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

from dev import ROOT
from tests.comfyui.nodes.published import TOKEN_DIM, write_ip_adapter, write_prior

HERE = Path(__file__).parent


class Inside:
    """Modules by name, as in `inside.nodes("apply_tokens")`, and tiny models made of tiny files."""

    def __init__(self, comfyui: Path, base: Path):
        self.base = base
        import_comfyui(comfyui, base)
        load_package("piece_it_together", ROOT)
        self.pack("nodes.bridge.folders").register_model_folders()
        self.tiny = load_package("tiny", HERE / "tiny")

    def pack(self, name: str) -> ModuleType:
        return importlib.import_module(f"piece_it_together.{name}")

    def nodes(self, name: str) -> ModuleType:
        """A module of the nodes of Piece it Together."""
        return self.pack(f"nodes.piece_it_together.{name}")

    def engine(self, name: str) -> ModuleType:
        """A module of the engine of Piece it Together."""
        return self.pack(f"pit.piece_it_together.{name}")

    def concepts(self, name: str) -> ModuleType:
        """A module of what concepts of all kinds have in common."""
        return self.pack(f"pit.concepts.{name}")

    def comfy(self, name: str) -> ModuleType:
        return importlib.import_module(f"comfy.{name}")

    def ip_adapter(self, dtype=torch.float32):
        path = write_ip_adapter(self.base / "ip_adapter.safetensors", dtype=dtype)
        return self.nodes("loading").load_ip_adapter(str(path), path.name)

    def prior(self, **sizes):
        path = write_prior(self.base / "prior.ckpt", **sizes)
        return self.nodes("loading").load_prior(str(path), path.name)

    def tokens(self, count: int, seed: int = 0, width: int = TOKEN_DIM):
        """Random tokens, layer-normalised as the resampler's are."""
        values = torch.randn(count + 1, 16, width, generator=torch.Generator().manual_seed(seed))
        values = torch.nn.functional.layer_norm(values, (width,))
        return self.concepts("tokens").Tokens(values[1:], values[:1], source="the tokens of a test")

    def apply(
        self, model, ip_adapter, tokens, weight=1.0, start=0.0, end=1.0, negative="grey picture", **optional
    ):
        """The model that Apply IP+ Tokens makes."""
        node = self.nodes("apply_tokens").ApplyTokens
        return node.execute(model, ip_adapter, tokens, weight, start, end, negative, **optional).args[0]

    def predict(self, model, images: int = 1, branches: tuple[int, ...] = (0, 1), sigma: float = 1.0):
        """What the UNet says, patches included: one row per image of each branch (0 positive, 1 negative)."""
        inputs = self.unet_inputs(images, branches)
        with torch.inference_mode():
            options = self.transformer_options(model, inputs[0], branches, sigma)
            return model.model.diffusion_model(*inputs, transformer_options=options)

    def transformer_options(self, model, latents, branches=(0, 1), sigma: float = 1.0) -> dict:
        """The options with which the UNet is called, after all wrappers of the model have had their turn."""
        extension = self.comfy("patcher_extension")
        wrappers = model.get_all_wrappers(extension.WrappersMP.APPLY_MODEL)
        executor = extension.WrapperExecutor.new_executor(lambda *call, **_: call[5], wrappers)
        sigmas = torch.full((len(latents) // len(branches),), sigma)
        options = model.model_options["transformer_options"]
        options = options | {"sigmas": sigmas, "cond_or_uncond": [*branches]}
        images = len(latents) // len(branches)
        rows = torch.tensor([(branch, image) for branch in branches for image in range(images)])
        extents = self.pack("nodes.bridge.extents")
        whole = extents.ConditionExtents.of(latents.shape[-2:], latents.device).process_cond(len(latents))
        carried = {self.pack("nodes.bridge.rows").ROWS: rows, extents.EXTENTS: whole.cond}
        return executor.execute(latents, sigmas, None, None, None, options, **carried)

    def unet_inputs(self, images: int, branches: tuple[int, ...]):
        """Latents, times, text and pooled text with sizes; every image has its own latent."""
        prompts = [self.tiny.conditioning(2 + branch)[0] for branch in branches]
        latents = torch.randn(images, 4, 16, 16, generator=torch.Generator().manual_seed(7))
        context = torch.cat([context.expand(images, -1, -1) for context, _ in prompts])
        pooled = torch.cat([extra["pooled_output"].expand(images, -1) for _, extra in prompts])
        sizes = self.comfy("ldm.modules.diffusionmodules.openaimodel").timestep_embedding(
            torch.tensor([128.0, 128, 0, 0, 128, 128]), 256).flatten().expand(len(pooled), -1)
        latents = latents.repeat(len(branches), 1, 1, 1)
        return latents, torch.full((len(latents),), 500.0), context, torch.cat([pooled, sizes], dim=1)


def import_comfyui(folder: Path, base: Path) -> None:
    """Import ComfyUI's `nodes` and all that it needs, under their own names, without a GPU."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    arguments = importlib.import_module("comfy.cli_args").args
    arguments.cpu = arguments.use_pytorch_cross_attention = arguments.fp32_text_enc = True
    arguments.base_directory = str(base)
    importlib.import_module("nodes")
    # Behind the pack from now on: both have packages called nodes and tests.
    sys.path[:] = [*before, str(folder)]


def load_package(name: str, folder: Path) -> ModuleType:
    """Import a folder as a package of this name, as ComfyUI does with custom_nodes."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
