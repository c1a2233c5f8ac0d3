"""Piece it Together for ComfyUI: pictures of a few parts in, whole concepts that keep those parts out."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI asks here for the nodes; imported only now, so that the pack imports without ComfyUI."""
    from .nodes import PieceItTogether

    return PieceItTogether()
