"""Whether graphs in API format fit the definitions of their nodes, as a real ComfyUI tells them."""

from __future__ import annotations

from collections.abc import Iterator

FILE_INPUTS = {
    "ckpt_name": "checkpoints", "clip_name": "clip_vision", "image": "input", "vae_name": "vae",
    "unet_name": "diffusion_models", "base": "kandinsky_prior", "movq": "kandinsky_decoder",
    "control_net_name": "controlnet", "model_name": "geometry_estimation",
}
# Of folders that a newcomer does not have yet, and of a choice that has the name of a file elsewhere.
FOLDER_INPUTS = {"folder", "pictures.folder"}
MATCHED = "COMFY_MATCHTYPE_V3"  # takes several types, and gives the one that it gets
NUMBERS = {"INT": int, "FLOAT": (int, float)}
OTHERS = {"STRING": str, "BOOLEAN": bool}


def sockets(definition: dict, given: dict) -> Iterator[tuple[str, str | list, dict, bool]]:
    """Name, type, options, and whether it is required, of every input; dynamic ones are spelled out."""
    for group in ("required", "optional"):
        for name, (kind, *rest) in definition["input"].get(group, {}).items():
            options, required = rest[0] if rest else {}, group == "required"
            if kind == "COMFY_DYNAMICCOMBO_V3":
                yield from chosen_sockets(name, options["options"], given.get(name), required)
                continue
            if kind != "COMFY_AUTOGROW_V3":
                yield name, kind, options, required
                continue
            template = options["template"]
            inner, *more = next(iter(template["input"]["required"].values()))
            for number in range(template["max"]):
                grown = f"{name}.{template['prefix']}{number}"
                yield grown, inner, more[0] if more else {}, number < template["min"]


def chosen_sockets(
    name: str, options: list[dict], choice: str, required: bool
) -> Iterator[tuple[str, str | list, dict, bool]]:
    """The choice itself, and the inputs that it brings."""
    yield name, "COMBO", {"options": [option["key"] for option in options]}, required
    for option in options:
        for group, inputs in option["inputs"].items() if option["key"] == choice else ():
            for inner, (kind, *rest) in inputs.items():
                yield f"{name}.{inner}", kind, rest[0] if rest else {}, group == "required"


def allowed_types(definition: dict) -> set[str]:
    """What the inputs of a node whose output is of the type of its input may take."""
    found = [options for _, kind, options, _ in sockets(definition, {}) if kind == MATCHED]
    return {each for options in found for each in options["template"]["allowed_types"].split(",")}


def fault_in_link(graph: dict, definitions: dict, kind: str, link: list) -> str | None:
    source, slot = link
    if source not in graph:
        return f"comes from the missing node {source}"
    if graph[source]["class_type"] not in definitions:
        return None  # that node is a fault of its own
    outputs = definitions[graph[source]["class_type"]]["output"]
    if slot >= len(outputs):
        return f"comes from output {slot} of {len(outputs)}"
    found, wanted = set(outputs[slot].split(",")), set(str(kind).split(","))
    if MATCHED in found:
        # It gives what comes in: any of what its inputs take, as far as a graph without a page can tell.
        found = allowed_types(definitions[graph[source]["class_type"]])
    return None if found & wanted or "*" in found | wanted else f"wants {kind}, gets {outputs[slot]}"


def fault_in_value(name: str, kind: str | list, options: dict, value) -> str | None:
    if kind == "COMBO" or isinstance(kind, list):
        choices = options["options"] if kind == "COMBO" else kind
        is_file = name in FILE_INPUTS or name == "file" or name in FOLDER_INPUTS
        return None if is_file or value in choices else f"is {value!r}, not one of {choices}"
    if kind in NUMBERS:
        low, high = options.get("min", value), options.get("max", value)
        fits = isinstance(value, NUMBERS[kind]) and not isinstance(value, bool) and low <= value <= high
        return None if fits else f"is {value!r}, wants {kind} from {low} to {high}"
    fits = kind in OTHERS and isinstance(value, OTHERS[kind])
    return None if fits else f"is {value!r}, wants {kind}"


def faults(graph: dict, definitions: dict) -> list[str]:
    """Where a graph in API format does not fit the definitions of its nodes."""
    found = []
    for key, node in graph.items():
        definition, given = definitions.get(node["class_type"]), dict(node["inputs"])
        if definition is None:
            found.append(f"{key}: there is no node {node['class_type']}")
            continue
        for name, kind, options, required in sockets(definition, node["inputs"]):
            if name not in given:
                found += [f"{key}.{name} is missing"] if required else []
                continue
            value = given.pop(name)
            if isinstance(value, list):
                kind = options["template"]["allowed_types"] if kind == MATCHED else kind
                fault = fault_in_link(graph, definitions, kind, value)
            else:
                fault = fault_in_value(name, kind, options, value)
            found += [f"{key}.{name} {fault}"] if fault else []
        found += [f"{key}.{name} is no input of {node['class_type']}" for name in given]
    return found
