"""The measures of the creatures' operators: a whole run with a few samples, and what is scored."""

import random
from dataclasses import replace

import pytest
import torch

from pit.demo.drawing.creature import COLOR_NAMES, typical_attributes
from pit.demo.drawing.instructions import Instruction
from pit.demo.drawing.scenes import SCENE_NAMES
from pit.demo.drawing.things import sample_thing
from pit.demo.measure import pops, pops_trials
from pit.demo.measure.estimates import Estimate
from pit.demo.measure.plan import FULL
from pit.demo.measure.pops import OPERATOR, TRUE, OperatorTable
from pit.demo.measure.suite import Laboratory
from pit.demo.models import chain, operators
from pit.demo.models.operator_files import OPERATORS
from pit.demo.models.reader import load_reader
from pit.demo.models.sizes import EMBEDDING_DIM, PICTURE_SIZE
from pit.demo.training.truth import pair_of
from pit.pops.files import OperatorConfig, OperatorFile, save_operator
from pit.pops.prior import PriorTransformer
from tests.demo.measure.readings import PAIRS, reading_of

PLAN = replace(FULL, trials=2)
CONFIG = OperatorConfig(EMBEDDING_DIM, 16, 1, 2, 64, 77)


class HastyChain(chain.CreatureChain):
    """One step instead of 25."""

    def sample(self, *arguments, **options):
        return super().sample(*arguments, **options | {"steps": 1})

    def denoise(self, tokens, captions, generator, *arguments):
        return super().denoise(tokens, captions, generator, 1)

    def denoise_embeddings(self, embeddings, captions, generator, *arguments):
        return super().denoise_embeddings(embeddings, captions, generator, 1)


@pytest.fixture(scope="module")
def lab():
    return Laboratory(HastyChain(), load_reader(), 3)


@pytest.fixture(autouse=True)
def hasty(tmp_path_factory, monkeypatch):
    """Operators of random weights, in one step."""
    folder = tmp_path_factory.mktemp("operators")
    torch.manual_seed(0)
    model = PriorTransformer(EMBEDDING_DIM, 16, 1, 2)
    for mode in OPERATORS:
        save_operator(folder / operators.operator_file(mode), OperatorFile(CONFIG, model.state_dict(), mode))
    monkeypatch.setattr(operators, "weight_file", lambda name: folder / name)
    for module in (operators, pops):
        monkeypatch.setattr(module, "STEPS", 1)


def test_every_table_has_the_operator_its_ceiling_and_other_ways(lab):
    drawn = []
    lab = replace(lab, on_pictures=drawn.append)
    tables = pops.pops_measures(lab, PLAN)
    assert [table.title for table in tables] == [
        "texturing", "scene", "union", "instruct", "compose, 2 parts", "compose, 5 parts",
        "instruct, scene and texturing in a chain",
    ]
    assert sum(drawn) == pops.pops_pictures(PLAN)
    for table in tables:
        assert next(iter(table.rows)) == OPERATOR and len(table.rows) >= 3
        assert (TRUE in table.rows) == ("compose" not in table.title)
        assert len(table.bars) in (0, len(table.columns))
        for scores in table.rows.values():
            assert len(scores) == len(table.columns)
            assert all(0 <= each.low <= each.value <= each.high <= 1 for each in scores)


def test_a_table_says_whether_bars_are_reached():
    def row(*values):
        return [Estimate(value, value, value, 128) for value in values]

    rows = {OPERATOR: row(0.93, 0.5), TRUE: row(1, 1)}
    table = OperatorTable("texturing", ("kept", "taken"), rows, (0.92, 0.88))
    lines = table.markdown().splitlines()
    assert lines[0] == "| texturing | kept | taken |"
    assert lines[-1] == "| target | 92%, reached | 88%, MISSED |"
    assert len(lines) == 5


def test_the_sheet_has_a_row_for_each_operator(lab):
    sheet = pops.pops_sheet(lab)
    assert sheet.width == 10 * PICTURE_SIZE and sheet.height > 5 * PICTURE_SIZE
    assert sheet.getcolors(maxcolors=16) is None


def test_tokens_of_one_embedding_side_by_side_are_those_of_that_embedding(lab):
    embeddings = torch.randn(2, EMBEDDING_DIM, generator=torch.Generator().manual_seed(0))
    one = lab.chain.render_embeddings(embeddings, ["", "a creature"], lab.seed)
    several = lab.chain.render_embeddings(embeddings[:, None], ["", "a creature"], lab.seed)
    assert torch.allclose(one, several, atol=1e-5)


# Scores ---------------------------------------------------------------------------------------------------


def perfect_reading(creatures, things=None):
    """What a perfect reader would see."""
    targets = pops_trials.all_attributes(creatures)
    pairs = torch.zeros(len(creatures), PAIRS)
    for row, thing in enumerate(things or []):
        pairs[row, pair_of(thing)] = 1
    scenes = torch.tensor([SCENE_NAMES.index(each.scene) for each in creatures])
    return reading_of(torch.where(targets < 0, 0, targets), things=pairs, scenes=scenes)


def scores_of(trials, creatures):
    reading = perfect_reading(creatures)
    return [score(reading).mean().item() for score in trials.scores.values()]


def test_textured_creatures_keep_all_and_take_all():
    first, second = (pops_trials.unseen(5, 12, name) for name in ("texture", "texture, patches"))
    trials = pops_trials.texture_trials(5, 12)
    results = [pops_trials.textured(a, b) for a, b in zip(first, second, strict=True)]
    assert scores_of(trials, results) == [1, 1]
    kept, taken = scores_of(trials, first)
    assert kept == 1 and taken < 0.5
    assert scores_of(trials, second)[0] < 0.5


def test_scenes_are_always_other_ones():
    trials, first = pops_trials.scene_trials(5, 12), pops_trials.unseen(5, 12, "scene")
    assert scores_of(trials, first) == [1, 0]
    assert len(trials.given) == 2 and {picture.size for picture in trials.given[1]} == {(256, 256)}


def test_words_are_followed_by_one_attribute():
    trials, first = pops_trials.instruct_trials(5, 30), pops_trials.unseen(5, 30, "instruct")
    results = [said.followed(creature) for said, creature in zip(trials.said, first, strict=True)]
    assert scores_of(trials, results) == [1, 1] and scores_of(trials, first) == [0, 1]
    assert all(phrase in said.phrases for phrase, said in zip(trials.phrases, trials.said, strict=True))


def test_the_color_of_a_part_counts_unless_the_part_is_new():
    creature = replace(
        pops_trials.unseen(5, 1, "instruct")[0],
        attributes=typical_attributes("ember") | {"horns": "none", "wings": "bat"},
    )
    changed = [Instruction("wings", "leaf"), Instruction("horns", "antlers")]
    results = [said.followed(creature) for said in changed]
    score = pops_trials.keeps_others(pops_trials.all_attributes(results), changed, [creature, creature])
    assert score(perfect_reading(results)).tolist() == [1, 1]
    names = ("wings_color", "horns_color")
    recolored = [
        replace(each, attributes=each.attributes | {name: other_color(each.attributes[name])})
        for each, name in zip(results, names, strict=True)
    ]
    first, second = score(perfect_reading(recolored)).tolist()
    assert first < 1 and second == 1


def other_color(color):
    return next(name for name in COLOR_NAMES if name != color)


def test_things_are_found_by_kind_and_color():
    things = [sample_thing(random.Random(seed)) for seed in range(6)]
    score = pops_trials.shows_things(things)
    creatures = pops_trials.unseen(0, 6, "union")
    assert score(perfect_reading(creatures, things)).tolist() == [1] * 6
    assert score(perfect_reading(creatures, things[::-1])).mean() < 0.5


def test_a_chain_counts_what_is_all_there():
    trials = pops_trials.chain_trials(5, 12)
    assert list(trials.scores) == ["word", "scene", "texture", "all three", "other attributes kept"]
    word, scene, texture, together, others = scores_of(trials, pops_trials.unseen(5, 12, "chain"))
    assert (word, scene, together, others) == (0, 0, 0, 1) and texture < 0.3
    assert all(said.attribute not in ("pattern", "body_color") for said in trials.said)


def test_every_instruction_is_a_prompt_that_the_renderer_reads(lab):
    prompts = {pops.prompt_of(each) for each in pops_trials.instruct_trials(1, 60).said}
    assert any(prompt.startswith("a creature with ") for prompt in prompts)
    lab.chain.renderer.text(sorted(prompts))
