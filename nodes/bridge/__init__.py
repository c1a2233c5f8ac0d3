"""ComfyUI's side, shared by all systems: folders, memory and feedback."""
