"""Piece it Together for ComfyUI: turns pictures of a few parts into whole concepts that keep those parts."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to get the nodes."""
    # ComfyUI looks for NODE_CLASS_MAPPINGS first and, if it finds them, never calls this function: a module
    # must not have both. The import waits until now so that the pack can be imported without ComfyUI.
    from .nodes import PieceItTogether

    return PieceItTogether()
