"""The pictures with which help pages begin: what a node does, made with the models that come with the pack.

Each node has a recipe, in the module of its group: a function that lets a ComfyUI run small graphs, and puts
what they show into rows, with captions of a few words. To add one, write the function, name it in `RECIPES`
of its module, and begin the help page, behind its title, with

    ![what there is to see](pictures/PiT_NAME.jpg)

in all languages. The page resolves such a link from the folder of the help pages.
"""
