// A color for each of our socket types, one for all nodes of a stage, and sockets that count from 1.
import { app } from "../../scripts/app.js"
const SOCKETS = {
    IP_ADAPTER: "#4fb3a5", PRIOR: "#b48ead", PARTS: "#e0a458", TOKENS: "#e87d9b", EMBEDDING: "#f2b5a7",
    DIRECTION: "#9ccc65", LAYER_WEIGHTS: "#8fa8d8", OPERATOR: "#c792ea", EMBEDDING_OPTIMIZER: "#64a6bd",
    PLACE: "#c5b358", PART_WORDS: "#ffb86b", PART_CLUSTERS: "#a3be8c", PART_ATTENTION: "#d57a66",
    PARTS2WHOLE: "#5e9ed6", REFERENCE: "#d9a5c9", REFERENCES: "#b97fb0", POSE: "#7fc8a9",
    CREATURE: "#c0ca6a", DATASET: "#b0a18f", TOKEN_CACHE: "#8d8375", TRAINING_PREVIEW: "#a58d7f",
}
const STAGES = [ // the first that fits the id of a node
    ["brown", /Train|Dataset|Measure|MakeParts|FindParts|PartClusters/],
    ["yellow", /_Load|_Save/],
    ["green", /Encode|CutOut|Creature|Example|Reference|Pose|Clothes|LabelParts|PartWords/],
    ["pale_blue", /Apply|Insert|PutBack|EmptyLatent|Kandinsky|LayerWeights|Patch|PartAttention|Strip/],
    ["purple", /./],
]
function countFromOne(input) { // but for pages in another language, whose translations do so
    const [, group, name] = input.name.match(/^(.+)\.(.+?)$/) ?? []
    const counted = name?.replace(/\d+$/, (number) => ` ${Number(number) + 1}`)
    const ours = (text) => [undefined, null, name, input.name, counted].includes(text)
    if (group && ours(input.label)) input.label = ours(input.localized_name) ? counted : undefined
}
function dress(node) {
    if (!node.comfyClass?.startsWith("PiT_")) return
    const [stage] = STAGES.find(([, ids]) => ids.test(node.comfyClass))
    const { color, bgcolor } = window.LGraphCanvas.node_colors[stage]
    if (!node.color && !node.bgcolor) Object.assign(node, { color, bgcolor })
    node.inputs?.forEach(countFromOne)
    node.onInputAdded = countFromOne
}
function setup() { // on the body and by getters, since palettes empty the colors that they lack, in the root
    const tables = [window.LGraphCanvas.link_type_colors, app.canvas.default_connection_color_byType]
    for (const [type, color] of Object.entries(SOCKETS)) {
        document.body.style.setProperty(`--color-datatype-PIT_${type}`, color)
        for (const each of tables) Object.defineProperty(each, `PIT_${type}`, { get: () => color, set() {} })
    }
}
app.registerExtension({ name: "pieceittogether.colors", setup, nodeCreated: dress, loadedGraphNode: dress })
