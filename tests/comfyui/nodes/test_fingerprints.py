"""ComfyUI gives all inputs to what fingerprints a node, and runs the node each time if they do not fit."""

import inspect


def test_what_fingerprints_a_node_takes_all_of_its_inputs(inside):
    nodes = [node for system in inside.pack("nodes").SYSTEMS for node in system.NODES]
    own = [node for node in nodes if "ComfyNode" not in node.fingerprint_inputs.__qualname__]
    assert len(own) > 20
    missing = {node.__name__: inputs_not_taken(node) for node in own}
    assert {name: inputs for name, inputs in missing.items() if inputs} == {}


def inputs_not_taken(node) -> set[str]:
    # An id with a dot belongs to a growing list, which arrives as one.
    names = {each.id.partition(".")[0] for each in node.define_schema().inputs}
    parameters = inspect.signature(node.fingerprint_inputs).parameters
    takes_all = any(each.kind == inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    return set() if takes_all else names - set(parameters)
