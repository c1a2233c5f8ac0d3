"""Prompts in the published form: the numbers of words, the ground, and what they depend on."""

import re
from collections import Counter

import pytest

from pit.piece_it_together.training.prompts import (
    CREATURE_SHARE,
    DOMAINS,
    FOLDER,
    dataset_prompts,
    picture_seeds,
)


def word_list(name):
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()


LISTS = sorted(path.stem for path in FOLDER.glob("*.txt"))
CHARACTER = re.compile(
    r".*: one (?P<adjectives>.+?) (?P<likes>[^ ]+-like(, [^ ]+-like)*) creature with eyes, arms, legs and a "
    r"mouth, on a plain white background"
)
PRODUCT = re.compile(
    r"Product design photo: one (?P<attributes>.+?) ((?P<likes>[^ ]+-like(, [^ ]+-like)*) )?product "
    r"made of (?P<materials>.+), with (?P<feature>.+), on a light grey gradient background, soft light"
)
PLUSH = re.compile(
    r"Studio photo: one (?P<colours>.+?) (?P<likes>[^ ]+-like(, [^ ]+-like)*) plush toy, "
    r"on a plain white background, soft light"
)


def likes(match: re.Match) -> list[str]:
    return [word.removesuffix("-like") for word in (match["likes"] or "").split(", ") if word]


@pytest.mark.parametrize("name", LISTS)
def test_a_word_list_is_clean(name):
    words = word_list(name)
    assert len(words) >= 60
    assert words == sorted(set(words))
    # Only features are phrases; a comma or an "and" inside would read as two words.
    pattern = r"[a-z]+(-[a-z]+)*" + (r"( [a-z]+(-[a-z]+)*)+" if name == "features" else "")
    assert [word for word in words if not re.fullmatch(pattern, word)] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_prompt_depends_on_seed_and_number_alone(domain):
    prompts = dataset_prompts(domain, 40, seed=3)
    assert prompts[:7] == dataset_prompts(domain, 7, seed=3)
    assert not set(prompts) & set(dataset_prompts(domain, 40, seed=4))
    assert len(set(prompts)) == 40


def test_characters_have_the_published_numbers_of_words():
    found = [CHARACTER.fullmatch(prompt) for prompt in dataset_prompts("characters", 600, seed=0)]
    adjectives = [match["adjectives"].split(", ") for match in found]
    assert {len(words) for words in adjectives} == {2, 3, 4, 5, 6}
    assert {len(likes(match)) for match in found} == {1, 2, 3}
    assert {word for words in adjectives for word in words} <= set(word_list("adjectives"))
    assert {word for match in found for word in likes(match)} <= set(
        word_list("creatures") + word_list("everyday")
    )


def test_characters_are_mostly_like_everyday_things():
    found = [CHARACTER.fullmatch(prompt) for prompt in dataset_prompts("characters", 2000, seed=1)]
    creatures = set(word_list("creatures"))
    shares = Counter(word in creatures for match in found for word in likes(match))
    assert shares[True] / shares.total() == pytest.approx(CREATURE_SHARE, abs=0.02)
    assert CREATURE_SHARE == pytest.approx(0.0916, abs=1e-4)


def test_products_have_the_published_numbers_of_words():
    found = [PRODUCT.fullmatch(prompt) for prompt in dataset_prompts("products", 400, seed=0)]
    for key, separator, sizes in (("attributes", ", ", {1, 2, 3}), ("materials", " and ", {1, 2})):
        words = [match[key].split(separator) for match in found]
        assert {len(chosen) for chosen in words} == sizes
        assert {word for chosen in words for word in chosen} <= set(word_list(key))
    assert {len(likes(match)) for match in found} == {0, 1, 2, 3}
    assert {word for match in found for word in likes(match)} <= set(word_list("everyday"))
    assert {match["feature"] for match in found} <= set(word_list("features"))


def test_plush_toys_have_colours_and_items():
    found = [PLUSH.fullmatch(prompt) for prompt in dataset_prompts("plush", 200, seed=0)]
    colours = [match["colours"].split(", ") for match in found]
    assert {len(chosen) for chosen in colours} == {1, 2, 3}
    assert {word for chosen in colours for word in chosen} <= set(word_list("plush_colours"))
    assert {len(likes(match)) for match in found} == {1, 2}
    assert {word for match in found for word in likes(match)} <= set(word_list("plush_items"))


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_word_comes_twice_in_a_prompt(domain):
    for prompt in dataset_prompts(domain, 300, seed=5):
        words = re.findall(r"[^ ,]+-like", prompt)
        assert len(words) == len(set(words))


def test_what_cannot_be_written_is_said():
    with pytest.raises(ValueError, match='characters, products, plush, found "cars"'):
        dataset_prompts("cars", 1, seed=0)
    with pytest.raises(ValueError, match="found a count of 0"):
        dataset_prompts("plush", 0, seed=0)


def test_every_picture_has_a_seed_of_its_own():
    seeds = picture_seeds(1000, 5)
    assert len({*seeds, *picture_seeds(1000, 6)}) == 2000
    assert picture_seeds(10, 5) == seeds[:10] and all(0 <= seed < 2**64 for seed in seeds)
