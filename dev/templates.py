"""What the templates are called, in one place: the names of their files are all that ComfyUI shows of them.

ComfyUI lists the templates of a pack by the names of their files, and writes the same name where a template
of its own has a description. A digit sorts them by what one wants to do; those with one digit do the same in
another way. In brackets stands what they need. The page asks for such names in URLs that the browser encodes;
letters with another meaning there (% # ? &) must not be in them. The API twins keep plain names, for scripts.
"""

from __future__ import annotations

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
        "texture_an_object_sdxl": ("Texture an object", SDXL),
        "texture_an_object_kandinsky": ("Texture an object", KANDINSKY),
        "put_it_in_a_scene_sdxl": ("Put it in a scene", SDXL),
        "put_it_in_a_scene_kandinsky": ("Put it in a scene", KANDINSKY),
        "say_it_with_a_word_sdxl": ("Say it with a word", SDXL),
        "say_it_with_a_word_kandinsky": ("Say it with a word", KANDINSKY),
        "chain_operators_sdxl": ("Word, scene and texture in a chain", SDXL),
        "chain_operators_kandinsky": ("Word, scene and texture in a chain", KANDINSKY),
    }),
    ("Insert objects", {
        "insert_an_object_sd15": ("Insert an object", SD15),
        "insert_many_sd15": ("Insert many objects", SD15),
    }),
    ("Mix parts by words", {
        "part_words_sd15": ("Mix parts by words", SD15),
        "find_the_parts_sd15": ("Find the parts", "DINOv2"),
    }),
    ("Dress a figure", {
        "dress_a_figure_sd15": ("Dress a figure", SD15),
    }),
    ("Train and measure", {
        "creature_lab": ("Measure what is kept", NOW),
        "train_your_own_prior": ("Train your own prior", NOW),
        "generate_a_dataset": ("Make pictures for a prior", SDXL),
        "make_texture_pairs_sdxl": ("Make pictures for textures", SDXL),
        "make_scene_pairs_sdxl": ("Make pictures for scenes", SDXL),
        "make_union_pairs_sdxl": ("Make pictures for unions", SDXL),
        "train_part_words_sd15": ("Train part words", SD15),
    }),
)

TITLES = {
    name: f"{number} {what} ({needs})"
    for number, (_, templates) in enumerate(CHAPTERS, 1) for name, (what, needs) in templates.items()
}
"""The title of each template, which is the name of its files, by the name of its API twin."""
