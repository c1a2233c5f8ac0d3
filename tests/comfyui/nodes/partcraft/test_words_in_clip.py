"""CLIP Text Encode reads part words as published, with ComfyUI's weights and windows around them."""
from __future__ import annotations

import re

import pytest
import torch
from transformers import CLIPTokenizer

from tests.comfyui.nodes.partcraft.shared import BOS, CONFIG, EOS, IO, engine, nodes, words_of
from tests.golden import assert_equal


def tokens_of(inside, golden, clip, name: str, ids, codes, parts):
    """Golden tokens as ComfyUI's, with the words that Apply PartCraft puts into them."""
    facts, tokenizer = golden.facts(CONFIG), getattr(clip.tokenizer, f"clip_{name}").tokenizer
    special = {facts["bos"]: BOS, facts["eos"]: EOS}
    # The published code deals the codes of a part out to its mentions, whatever stands between them.
    waiting = {
        token: iter([code for part, code in zip(parts, codes, strict=True) if part == number])
        for number, token in enumerate(facts["placeholder_ids"])
    }
    word = engine(inside, "prompt").PartWord
    found = []
    for token in ids:
        if token in facts["placeholder_ids"]:
            part = facts["placeholder_ids"].index(token)
            found.append((tokenizer.vector(word(part, (next(waiting[token]),))), 1.0))
        else:
            found.append((special.get(token, token), 1.0))
    return [found]


@pytest.mark.golden_keys(IO, r"text/(distinct|repeat|order|none)/ids1")
def test_a_text_becomes_the_published_embeddings(inside, golden, reading, key):
    io = golden.below(IO, key.removesuffix("ids1"))
    codes, parts = (io[name].flatten().tolist() if name in io else [] for name in ("codes", "parts"))
    with torch.inference_mode():
        given = {"l": tokens_of(inside, golden, reading.sd15, "l", io["ids1"][0].tolist(), codes, parts)}
        context, pooled = reading.sd15.encode_from_tokens(given, return_pooled=True)
        assert_equal(context, io["sd15_last_hidden"])
        assert_equal(pooled, io["sd15_pooled"])
        given = {
            name: tokens_of(inside, golden, reading.sdxl, name, io[ids][0].tolist(), codes, parts)
            for name, ids in (("l", "ids1"), ("g", "ids2"))
        }
        context, pooled = reading.sdxl.encode_from_tokens(given, return_pooled=True)
        assert_equal(context, io["sdxl_embeds"])
        assert_equal(pooled, io["sdxl_pooled"])


def ids_in(tokens) -> list:
    """Tokens without their weights; a word by its text."""
    return [[getattr(token, "part_word", (0, token))[1] for token, _ in row] for row in tokens]


@pytest.mark.parametrize("text, words", [
    ("a photo of a <part2:3> <part4:1> bird", 2), ("<part0:1>", 1), ("<part0:1>, <part0:2>.", 2),
    ("a<part1:7>b", 1), ("two of <part3:1><part3:1>", 2),
])
def test_text_around_words_is_tokenized_as_published(reading, bundled, text, words):
    """The published code adds tokens to CLIP's tokenizer, and writes them into the prompt."""
    published = CLIPTokenizer.from_pretrained(reading.sd15.tokenizer.clip_l.tokenizer.name_or_path)
    published.add_tokens([f"<part>_{number}" for number in range(5)])
    caption = re.sub(r"<part(\d):(\d)>", r"<part>_\1", text)
    wanted = published(caption)["input_ids"]
    found = ids_in(reading.sd15.tokenize(text)["l"])[0][:len(wanted)]
    assert [token if isinstance(token, int) else EOS + 1 + int(token[5]) for token in found] == wanted
    assert sum(isinstance(token, str) for token in found) == words


@pytest.mark.parametrize("text", [
    "ratio 3:4", "16:9, (red:1.3), <lora:x:1>, 1 < 2 > 0", "a: b", "embedding:x", "(a (b:0.3) \\(c\\))", "",
])
def test_text_without_words_is_left_alone(reading, clip, xl_clip, text):
    for plain, ours in ((clip, reading.sd15), (xl_clip, reading.sdxl)):
        assert ours.tokenize(text) == plain.tokenize(text)


def test_words_take_weights_mixtures_and_other_spellings(inside, bundled, reading):
    rows = reading.sd15.tokenize("a (<part2:3>:1.2) and ((<part1:1|2>)) <2:2>")["l"][0]
    marked = [(token, weight) for token, weight in rows if torch.is_tensor(token)]
    assert [weight for _, weight in marked] == pytest.approx([1.2, 1.21, 1.0])
    assert [token.part_word.text for token, _ in marked] == ["<part2:3>", "<part1:1|2>", "<part2:3>"]
    words, word = words_of(inside, bundled, "mapper_l1"), engine(inside, "prompt").PartWord
    wanted = words.of([word(2, (2,)), word(1, (0, 1)), word(2, (2,))])
    assert_equal(torch.stack([token for token, _ in marked]), wanted)


def test_names_may_hold_parentheses(inside, bundled, clip):
    prompt, files = engine(inside, "prompt"), engine(inside, "files")
    plain = words_of(inside, bundled, "mapper_l1")
    known = prompt.Vocabulary(tuple(prompt.Part(f"p{n}", 7) for n in range(5)), ("finch (male)", "jay"))
    words = files.PartWords(plain.mapper, known, {}, "names")
    reading = nodes(inside, "text").with_words(clip, words, "words")
    for text in ("<p1:finch (male)>", r"<p1:finch \(male\)>", "<p1:Finch_(Male)>"):
        rows = reading.tokenize(f"a {text} bird")["l"][0]
        assert [(token.part_word.text, weight) for token, weight in rows if torch.is_tensor(token)] == [
            ("<p1:finch (male)>", 1.0)]


def test_both_encoders_of_sdxl_get_their_share_of_a_word(inside, bundled, reading):
    tokens = reading.sdxl.tokenize("a <part2:3> bird")
    vectors = [next(token for token, _ in tokens[name][0] if torch.is_tensor(token)) for name in "lg"]
    words, word = words_of(inside, bundled, "mapper_xl"), engine(inside, "prompt").PartWord
    assert_equal(torch.cat(vectors), words.of([word(2, (2,))])[0])


def test_nothing_of_a_long_prompt_is_cut_off_and_the_node_says_what_comes_late(inside, reading, monkeypatch):
    said = []
    monkeypatch.setattr(nodes(inside, "text"), "say_where_it_runs", said.append)
    few = " ".join(f"<part{n % 5}:{n % 7 + 1}>" for n in range(40))
    reading.sd15.tokenize(few)
    assert said == []
    many = " ".join([few, few])
    rows = ids_in(reading.sd15.tokenize(many)["l"])
    found = [token for row in rows for token in row if isinstance(token, str)]
    assert found == many.split()
    assert [len(row) for row in rows] == [77, 77]
    (note,) = said
    later = [token for token in rows[1] if isinstance(token, str)]
    assert "Nothing is cut off" in note and "2 such windows" in note and later[0] in note


def test_a_negative_prompt_and_later_windows_are_encoded(reading, encode):
    long = f"{'very ' * 80} <part1:2> bird"
    for clip in (reading.sd15, reading.sdxl):
        for text in (long, f"(<part1:2>:0.5) {long}"):
            ((context, more),) = encode(clip, text)
            assert context.shape[1] == 154 and more["part_words"]["<part1:2>"][-1] > 77
            assert context.isfinite().all()
    ((first, _),), ((second, _),) = encode(reading.sd15, "a <part1:2>"), encode(reading.sd15, "a <part1:3>")
    assert not torch.equal(first, second)


def test_the_clip_itself_is_left_as_it_was(clip, reading, encode):
    """One module serves both, whichever has been loaded last."""
    plain = encode(clip, "a <part1:2> bird")
    ours = encode(reading.sd15, "a <part1:2> bird")
    again = encode(clip, "a <part1:2> bird")
    assert torch.equal(plain[0][0], again[0][0])
    assert torch.equal(ours[0][0], encode(reading.sd15, "a <part1:2> bird")[0][0])
    assert "part_words" in ours[0][1] and "part_words" not in again[0][1]
    assert torch.equal(plain[0][1]["pooled_output"], again[0][1]["pooled_output"])
    assert not torch.equal(ours[0][1]["pooled_output"], again[0][1]["pooled_output"])


@pytest.mark.parametrize("text, message", [
    ("<part2:8>", "a number from 1 to 7 for the part part2, got 8"),
    ("<2:7>", "a number from 0 to 6 for the part part2, got 7"),
    ("<prt2:1>", "got 'prt2'. Did you mean part2"),
    ("a (<part2:cardinal>:1.2)", "a code of the part part2, got 'cardinal'"),
])
def test_a_word_that_there_is_not_is_an_error_with_what_is_near(reading, text, message):
    for clip in (reading.sd15, reading.sdxl):
        with pytest.raises(ValueError, match=re.escape(message)):
            clip.tokenize(text)


def test_words_of_another_base_are_refused(inside, bundled, clip, xl_clip):
    read = nodes(inside, "text").with_words
    with pytest.raises(ValueError, match="Expected part words 32 numbers wide, .* got words of 72"):
        read(clip, words_of(inside, bundled, "mapper_xl"), "words")
    with pytest.raises(ValueError, match="Expected part words 72 numbers wide, .* got words of 32"):
        read(xl_clip, words_of(inside, bundled, "mapper_l1"), "words")


def test_another_kind_of_clip_is_refused(inside, bundled, clip):
    with pytest.raises(ValueError, match="the CLIP of SD 1.5, SD 2 or SDXL, got one with the text"):
        nodes(inside, "text").with_words(None, words_of(inside, bundled, "mapper_l1"), "words")
    other = clip.clone()
    other.tokenizer = type("T5Only", (), {})()
    with pytest.raises(ValueError, match="the CLIP of SD 1.5, SD 2 or SDXL, got one with the text encoders"):
        nodes(inside, "text").with_words(other, words_of(inside, bundled, "mapper_l1"), "words")


def test_the_last_words_count_where_two_are_applied(inside, bundled, clip, reading, encode):
    again = nodes(inside, "text").with_words(reading.sd15, words_of(inside, bundled, "mapper_l1"), "words")
    assert torch.equal(encode(again, "a <part1:2>")[0][0], encode(reading.sd15, "a <part1:2>")[0][0])
    assert again.tokenizer.clip_l.tokenizer.plain is clip.tokenizer.clip_l.tokenizer


@pytest.mark.parametrize("syntax, text, words", [
    ("re", "a <2:3>, ratio 3:4", ["<part2:4>"]), ("v1", "a 2:3, 1:4", ["<part2:4>", "<part1:5>"]),
    ("v2", "a <2:-3>. 3:4", ["<part2:4>"]),
])
def test_the_published_parsers_can_be_chosen(inside, bundled, clip, syntax, text, words):
    read = nodes(inside, "text").with_words(clip, words_of(inside, bundled, "mapper_l1"), syntax)
    assert [token for token in ids_in(read.tokenize(text)["l"])[0] if isinstance(token, str)] == words
