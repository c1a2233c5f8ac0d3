"""Saved graphs rely on the ids, inputs, defaults and outputs of the nodes; `signatures.json` holds them."""

import json
from pathlib import Path

SIGNATURES = Path(__file__).with_name("signatures.json")
KEPT = (
    "default", "min", "max", "step", "options", "control_after_generate", "advanced", "prefix",
    "allowed_types",
)
# Their options are what lies in ComfyUI's folders.
LISTINGS = (
    "file", "base", "movq", "folder", "start_from", "first_folder", "second_folder", "unet", "reference_unet",
    "pose_guider", "decoupled", "alexnet", "lpips",
)


def described(name: str, group: str, kind: str, facts: dict) -> str:
    facts = facts | facts.get("template", {})
    if kind == "COMFY_DYNAMICCOMBO_V3":
        facts["options"] = [without_listings(option) for option in facts["options"]]
    known = [key for key in KEPT if key in facts and not (key == "options" and name in LISTINGS)]
    kept = [f"{key}={facts[key]}" for key in known]
    return " ".join([group, kind, *kept])


def without_listings(option: dict) -> dict:
    """A choice of a dynamic input, without what lies in ComfyUI's folders, and without its tooltips."""
    def kept(name: str, facts: dict) -> dict:
        return {} if name in LISTINGS else {key: facts[key] for key in facts if key != "tooltip"}

    groups = {
        group: {name: (kind, kept(name, facts)) for name, (kind, facts) in inputs.items()}
        for group, inputs in option["inputs"].items()
    }
    return {"key": option["key"], "inputs": groups}


def signature(definition: dict) -> dict:
    inputs = {
        name: described(name, group, kind, facts[0] if facts else {})
        for group in ("required", "optional")
        for name, (kind, *facts) in definition["input"].get(group, {}).items()
    }
    outputs = dict(zip(definition["output_name"], definition["output"], strict=True))
    return {"title": definition["display_name"], "inputs": inputs, "outputs": outputs}


def test_the_nodes_keep_their_signatures(lab, tmp_path):
    definitions = lab.object_info()
    found = {key: signature(definitions[key]) for key in sorted(definitions) if key.startswith("PiT_")}
    new = tmp_path / SIGNATURES.name
    new.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(SIGNATURES.read_text()), (
        f"If the change is meant, register a replacement of what went, and copy {new} over {SIGNATURES}."
    )
