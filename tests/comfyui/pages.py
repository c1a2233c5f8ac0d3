"""What the tests do in ComfyUI's page: build a graph, run it, and see what becomes of it."""

from __future__ import annotations

from tests.comfyui.workflows import template

CLEAR = """() => {
    window.app.clean()
    window.app.graph.clear()
}"""
WATCH = """() => {
    const watched = window.seen !== undefined
    window.seen = []
    if (watched) return
    const ends = ["execution_success", "execution_error", "execution_interrupted"]
    for (const type of [...ends, "progress", "executed"])
        window.app.api.addEventListener(type, (event) => window.seen.push({ type, ...event.detail }))
}"""
BUILD = """({ nodes, links, values }) => {
    const { app, LiteGraph } = window
    const made = {}
    app.graph.clear()
    Object.entries(nodes).forEach(([name, type], number) => {
        made[name] = LiteGraph.createNode(type)
        made[name].pos = [350 * (number % 4), 100 + 450 * Math.floor(number / 4)]
        app.graph.add(made[name])
    })
    for (const [from, output, to, input] of links)
        made[from].connect(made[from].findOutputSlot(output), made[to], made[to].findInputSlot(input))
    for (const [name, widgets] of Object.entries(values))
        for (const [widget, value] of Object.entries(widgets))
            made[name].widgets.find((each) => each.name === widget).value = value
    app.canvas.draw(true, true)
    return Object.fromEntries(Object.entries(made).map(([name, node]) => [name, String(node.id)]))
}"""
SEEN = """([type, node, count]) =>
    window.seen.filter((event) => event.type === type && (node === null || event.node === node))[count - 1]
"""
SET_VALUE = """([node, widget, value]) => {
    const { graph } = window.app
    const hosts = graph.nodes.filter((each) => each.subgraph?.getNodeById(node))
    const owner = graph.getNodeById(node) ?? hosts[0].subgraph.getNodeById(node)
    const input = owner.inputs.find((each) => each.widget?.name === widget)
    const link = hosts[0]?.subgraph.getLink(input?.link)
    // A widget that a subgraph shows has its value there.
    const [shown, name] = link ? [hosts[0], hosts[0].inputs[link.origin_slot].name] : [owner, widget]
    shown.widgets.find((each) => each.name === name).value = value
}"""
OPEN_ANOTHER_TAB = """async () => {
    const { command, workflow } = window.app.extensionManager
    const { path } = workflow.activeWorkflow
    await command.execute("Comfy.NewBlankWorkflow")
    return path
}"""
OPEN_TAB = """async (path) => {
    const { command, workflow } = window.app.extensionManager
    for (let left = workflow.openWorkflows.length; left && workflow.activeWorkflow.path !== path; left--)
        await command.execute("Workspace.PreviousOpenedWorkflow")
}"""
SHOWN = """([node, name]) =>
    window.app.graph.getNodeById(node)?.imgs?.some((image) => image.src.includes(name) && image.naturalWidth)
"""
TITLE_ON_SCREEN = """node => {
    const { canvas, graph } = window.app
    const { left, top } = canvas.canvas.getBoundingClientRect()
    const [x, y] = canvas.ds.convertOffsetToCanvas(graph.getNodeById(node).pos)
    return [left + x + 50, top + y - 12]
}"""


def clear(page) -> None:
    """Take away the graph, and what was shown in its nodes."""
    page.evaluate(CLEAR)


def open_workflow(page, name: str) -> None:
    """Open a graph that comes with the pack."""
    page.evaluate("workflow => window.app.loadGraphData(workflow)", template(name))


def build(page, nodes: dict[str, str], links: list[tuple[str, ...]] = (), values: dict | None = None) -> dict:
    """Put a new graph on the page, as a user would: nodes, then links by slot names, then widgets.

    Args:
        nodes: types by a name for each.
        links: name of a node, its output, name of another node, its input.
        values: of widgets, by name of the node and of the widget.
    Returns:
        The id that the page gave to each node, by name.
    """
    return page.evaluate(BUILD, {"nodes": nodes, "links": links, "values": values or {}})


def set_value(page, node: str, widget: str, value) -> None:
    """Set a widget of a node, which may be inside of a subgraph."""
    page.evaluate(SET_VALUE, [node, widget, value])


def select(page, node: str) -> None:
    """Click on the title of a node."""
    page.mouse.click(*page.evaluate(TITLE_ON_SCREEN, node))


def press_run(page) -> None:
    """Click Run; from now on the page remembers what ComfyUI tells it of the graph."""
    page.evaluate(WATCH)
    page.get_by_test_id("queue-button").click()


def wait_for(page, event: str, node: str | None = None, count: int = 1) -> dict:
    """The count-th message of this type, about this node if one is given."""
    return page.wait_for_function(SEEN, arg=[event, node, count]).json_value()


def images_of(page, node: str) -> list[dict[str, str]]:
    """The pictures that the page shows in an output node, as the server names them."""
    return page.evaluate("node => window.app.nodeOutputs[node].images", node)


def leave_and_come_back(page) -> None:
    """Open another workflow in a tab of its own, then the tab before it again."""
    path = page.evaluate(OPEN_ANOTHER_TAB)
    page.wait_for_function("window.app.graph.nodes.length === 0")
    page.evaluate(OPEN_TAB, path)
    page.wait_for_function("window.app.graph.nodes.length > 0")


def wait_for_picture(page, node: str, name: str) -> None:
    """Until the page has drawn the picture of this file in a node."""
    page.wait_for_function(SHOWN, arg=[node, name])
