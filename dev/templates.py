"""What the templates are called, in one place: the names of their files are all that ComfyUI shows of them.

ComfyUI lists the templates of a pack by the names of their files, and writes the same name where a template
of its own has a description. A digit sorts them by what one wants to do; those with one digit do the same in
another way. In brackets stands what they need. The page asks for such names in URLs that the browser encodes;
letters with another meaning there (% # ? &) must not be in them. The API twins keep plain names, for scripts.
"""

from __future__ import annotations

from dataclasses import dataclass

NOW, SDXL, KANDINSKY, SD15 = "runs at once", "SDXL", "Kandinsky 2.2", "SD 1.5"

CHAPTERS: tuple[tuple[str, dict[str, tuple[str, str]]], ...] = (
    ("Piece it together", {
        "piece_it_together": ("Piece it together", NOW),
        "piece_it_together_sdxl": ("Piece it together", SDXL),
        "a_folder_of_part_sets": ("Piece together a whole folder", NOW),
    }),
    ("Choose among concepts", {
        "explore_concepts": ("Explore and vary", NOW),
        "explore_concepts_sdxl": ("Explore and vary", SDXL),
        "blend_concepts": ("Blend two concepts", NOW),
        "blend_concepts_sdxl": ("Blend two concepts", SDXL),
        "token_library": ("Keep concepts as files", NOW),
    }),
    ("Edit by a direction", {
        "edit_by_direction": ("Edit by a direction", NOW),
        "find_a_direction": ("Find a direction", NOW),
    }),
    ("Put a concept to use", {
        "concept_in_a_scene": ("Concept in a scene", NOW),
        "concept_in_a_scene_sdxl": ("Concept in a scene", SDXL),
        "character_sheet": ("Character sheet", NOW),
        "character_sheet_sdxl": ("Character sheet", SDXL),
    }),
    ("Combine pictures (pOps)", {
        "texture_an_object": ("Texture an object", NOW),
        "texture_an_object_sdxl": ("Texture an object", SDXL),
        "texture_an_object_kandinsky": ("Texture an object", KANDINSKY),
        "put_it_in_a_scene": ("Put it in a scene", NOW),
        "put_it_in_a_scene_sdxl": ("Put it in a scene", SDXL),
        "put_it_in_a_scene_kandinsky": ("Put it in a scene", KANDINSKY),
        "say_it_with_a_word": ("Say it with a word", NOW),
        "say_it_with_a_word_sdxl": ("Say it with a word", SDXL),
        "say_it_with_a_word_kandinsky": ("Say it with a word", KANDINSKY),
        "chain_operators": ("Word, scene and texture in a chain", NOW),
        "chain_operators_sdxl": ("Word, scene and texture in a chain", SDXL),
        "chain_operators_kandinsky": ("Word, scene and texture in a chain", KANDINSKY),
    }),
    ("Insert objects", {
        "insert_an_object": ("Insert an object", NOW),
        "insert_many": ("Insert many objects", NOW),
        "insert_an_object_sd15": ("Insert an object", SD15),
        "insert_many_sd15": ("Insert many objects", SD15),
    }),
    ("Mix parts by words", {
        "part_words": ("Mix parts by words", NOW),
        "part_words_sd15": ("Mix parts by words", SD15),
        "find_the_parts": ("Find the parts", NOW),
        "find_the_parts_sd15": ("Find the parts", "DINOv2"),
    }),
    ("Dress a figure", {
        "dress_a_figure": ("Dress a figure", NOW),
        "creature_in_a_pose": ("Creature in a pose", NOW),
        "dress_a_figure_sd15": ("Dress a figure", SD15),
    }),
    ("Train and measure", {
        "creature_lab": ("Measure what is kept", NOW),
        "train_your_own_prior": ("Train your own prior", NOW),
        "generate_a_dataset": ("Make pictures for a prior", SDXL),
        "make_texture_pairs_sdxl": ("Make pictures for textures", SDXL),
        "make_scene_pairs_sdxl": ("Make pictures for scenes", SDXL),
        "make_union_pairs_sdxl": ("Make pictures for unions", SDXL),
        "train_part_words": ("Train part words", NOW),
        "train_part_words_sd15": ("Train part words", SD15),
    }),
)

TITLES = {
    name: f"{number} {what} ({needs})"
    for number, (_, templates) in enumerate(CHAPTERS, 1) for name, (what, needs) in templates.items()
}
"""The title of each template, which is the name of its files, by the name of its API twin."""


@dataclass(frozen=True)
class Blueprint:
    """A subgraph of a template that ComfyUI offers among its nodes.

    Attributes:
        template: the name of its API twin. title: of the subgraph there.
        category: below that of the pack. words: by which it is found, besides its name.
        essential: whether a beginner needs it.
    """

    template: str
    title: str
    category: str
    description: str
    words: tuple[str, ...]
    essential: bool = False


BLUEPRINTS = {
    "Parts to concept": Blueprint(
        "piece_it_together_sdxl", "Parts to concept", "Concepts",
        "Encodes pictures of parts and completes them to whole concepts, with an IP-Prior.",
        ("piece it together", "horns", "collage", "combine pictures", "ip prior"), essential=True,
    ),
    "Render concept": Blueprint(
        "piece_it_together_sdxl", "Render concept", "Concepts",
        "Draws concepts with a checkpoint: tokens, prompts, sampler and VAE in one node.",
        ("draw tokens", "ip adapter", "image prompt", "sample"), essential=True,
    ),
    "Vary and render": Blueprint(
        "explore_concepts_sdxl", "Vary and render", "Concepts",
        "Draws variations of a concept, as far from it as strength says.",
        ("vary", "variations", "similar"),
    ),
    "Combine two pictures": Blueprint(
        "texture_an_object_sdxl", "Combine two pictures", "pOps",
        "Encodes two pictures and combines them with a pOps operator: texture, scene or union.",
        ("mix", "style", "texture", "scene", "pops"),
    ),
    "Say it with a word": Blueprint(
        "say_it_with_a_word_sdxl", "Say it with a word", "pOps",
        "Changes what a picture shows as words say, one embedding for each line, the picture itself first.",
        ("instruct", "adjective", "style", "pops"),
    ),
    "Render embedding": Blueprint(
        "texture_an_object_kandinsky", "Render embedding (Kandinsky)", "pOps",
        "Draws image embeddings with the decoder of Kandinsky 2.2.",
        ("kandinsky", "draw embedding", "unclip"),
    ),
    "Insert an object": Blueprint(
        "insert_an_object_sd15", "Insert an object", "Object Insertion",
        "Inserts an object, shown in a picture of its own, into a scene: the model finds the place by "
        "itself. With a region, everything outside of it is kept to the pixel.",
        ("put into picture", "compose", "place an object", "inpaint"), essential=True,
    ),
    "Draw with part words": Blueprint(
        "part_words_sd15", "Draw with part words", "PartCraft",
        "Draws a text in which parts of species are words, and shows where each word acts.",
        ("partcraft", "bird", "head of", "mix species"),
    ),
    "Dress a figure": Blueprint(
        "dress_a_figure_sd15", "Dress a figure", "Parts2Whole",
        "Puts a face, hair and clothes of several pictures together into one person.",
        ("try on", "clothes", "outfit", "person", "parts2whole"),
    ),
}
"""The blueprints, by their names, which are those of their files."""
