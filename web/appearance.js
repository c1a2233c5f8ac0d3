// A color for each of our socket types, one for all nodes of a stage, and sockets that count from 1.
import { app } from "../../scripts/app.js"

const SOCKETS = {
    IP_ADAPTER: "#4fb3a5", PRIOR: "#b48ead", PARTS: "#e0a458", TOKENS: "#e87d9b", EMBEDDING: "#f2b5a7",
    DIRECTION: "#9ccc65", LAYER_WEIGHTS: "#8fa8d8", OPERATOR: "#c792ea", OPTIMIZER: "#64a6bd",
    PLACE: "#c5b358", PART_WORDS: "#ffb86b", PART_CLUSTERS: "#a3be8c", PART_ATTENTION: "#d57a66",
    PARTS2WHOLE: "#5e9ed6", REFERENCE: "#d9a5c9", REFERENCES: "#b97fb0", POSE: "#7fc8a9",
    CREATURE: "#c0ca6a", DATASET: "#b0a18f", TOKEN_CACHE: "#8d8375", TRAINING_PREVIEW: "#a58d7f",
}
const STAGES = [ // the first that fits the id of a node
    ["brown", /Train|Dataset|Measure|MakeParts|FindParts|PartClusters/],
    ["yellow", /PiT_Load|PiT_Save/],
    ["green", /Encode|CutOut|Creature|Reference|Pose|Clothes|LabelParts|PartWords/],
    ["pale_blue", /Apply|Insert|PutBack|EmptyLatent|Kandinsky|LayerWeights|Patch|PartAttention|Strip/],
    ["purple", /PiT_/],
]

function countFromOne(input) {
    const name = input.name.split(".").pop()
    const own = [undefined, name, input.name].includes(input.label ?? input.localized_name)
    if (own && input.name.includes(".")) input.label = name.replace(/\d+$/, (number) => ` ${Number(number) + 1}`)
}

function dress(node) {
    if (!node.comfyClass?.startsWith("PiT_")) return
    const colors = window.LGraphCanvas.node_colors[STAGES.find(([, ids]) => ids.test(node.comfyClass))[0]]
    node.color ??= colors.color
    node.bgcolor ??= colors.bgcolor
    node.inputs?.forEach(countFromOne)
    node.onInputAdded = countFromOne
}

app.registerExtension({ name: "PieceItTogether.Appearance", nodeCreated: dress, loadedGraphNode: dress, setup() {
    // A palette empties the colors of types that it does not know: ours then count again.
    for (const colors of [window.LGraphCanvas.link_type_colors, app.canvas.default_connection_color_byType])
        for (const [type, color] of Object.entries(SOCKETS)) {
            let chosen = colors[`PIT_${type}`]
            Object.defineProperty(colors, `PIT_${type}`, { get: () => chosen || color, set: (other) => (chosen = other), enumerable: true })
        }
    document.head.append(Object.assign(document.createElement("style"), { textContent: `:root {${Object.entries(SOCKETS).map(([type, color]) => `--color-datatype-PIT_${type}: ${color};`).join("")}}` }))
} })
