"""Makes the pack's model folders in the ComfyUI that it is installed in, and says which file goes where.

ComfyUI-Manager runs this after installing; it downloads nothing.
"""

from pathlib import Path

FILES = {
    "ipadapter": "ip-adapter-plus_sdxl_vit-h.safetensors, from h94/IP-Adapter (sdxl_models)",
    "ip_prior": "prior.ckpt and its cfg.yaml, from kfirgold99/Piece-it-Together (models/*_ckpt)",
}


def models_folder(pack: Path) -> Path | None:
    """ComfyUI's models folder, seen from <ComfyUI>/custom_nodes/<pack>; None if the pack is elsewhere."""
    return pack.parent.parent / "models" if pack.parent.name == "custom_nodes" else None


def main() -> None:
    # Links are not followed: a pack that is linked into custom_nodes belongs to the ComfyUI with the link.
    pack = Path(__file__).absolute().parent
    models = models_folder(pack)
    if models is None:
        print(
            f"Expected the pack in the custom_nodes folder of a ComfyUI, got {pack}. No model folder was "
            "made: move the pack there and run this again."
        )
        return
    print("Piece it Together needs no files for its demo models. For SDXL put")
    for name, files in FILES.items():
        folder = models / name
        folder.mkdir(parents=True, exist_ok=True)
        print(f"  {files}\n    into {folder}")


if __name__ == "__main__":
    main()
