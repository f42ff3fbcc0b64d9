"""A language model on this machine: a tiny one that was made here, trained by heart, and one that knows nothing."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aimfair import prompts
from aimfair.environment import AimfairError
from aimfair.prompts import writers, writing

TASK = "celeba/Smiling_Male"
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


def recorded(group, number):
    return [p["text"] for p in prompts.read(TASK)["groups"][group]["prompts"][:number]]


def requests(number):
    """The first request for each group, for a bank of ``number`` prompts per group."""
    empty = writing.empty_bank(prompts.read(TASK), {})
    return {group: writing.request_text(empty, group, number + writing.SPARE) for group in empty["groups"]}


def tiny(folder, template=TEMPLATE, context=1024, sentences=2):
    """A Llama of 90 thousand weights; a token is a word, or one of the first recorded sentences as a whole."""
    words = sorted({w for text in requests(2).values() for w, _ in Whitespace().pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(["<u>", "<s>", "<a>", "<e>", *words])}
    by_word = Tokenizer(WordLevel(vocabulary, unk_token="<u>"))
    by_word.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=by_word, unk_token="<u>", bos_token="<s>", eos_token="<e>", pad_token="<e>"
    )
    whole = [f"{i}. {text}\n" for g in requests(2) for i, text in enumerate(recorded(g, sentences), 1)]
    tokenizer.add_tokens(["<a>", *whole])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,  # so that it learns by heart quickly
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config), tokenizer


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory):
    """A model that has learnt what to answer to the first request for each group, and its loss."""
    folder = tmp_path_factory.mktemp("llama")
    model, tokenizer = tiny(folder)
    pairs = []
    for group, text in requests(2).items():
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        answer = tokenizer("".join(f"{i}. {t}\n" for i, t in enumerate(recorded(group, 2), 1)))["input_ids"]
        assert len(answer) == 2
        pairs.append((asked, [*answer, tokenizer.eos_token_id]))
    longest = max(len(a) + len(b) for a, b in pairs)
    ids = torch.full((len(pairs), longest), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for row, (asked, answer) in enumerate(pairs):
        ids[row, : len(asked) + len(answer)] = torch.tensor(asked + answer)
        labels[row, len(asked) : len(asked) + len(answer)] = torch.tensor(answer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 5e-3:
            break
    model.save_pretrained(folder)
    return folder, loss.item()


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ignorant")
    model, _ = tiny(folder, context=700, sentences=0)
    model.save_pretrained(folder)
    return folder


SMALL = {"device": "cpu", "per_group": 2}


def test_a_local_model_writes_a_bank(by_heart, tmp_path):
    folder, loss = by_heart
    assert loss < 0.05
    before = torch.random.get_rng_state()
    out, options = tmp_path / "bank.json", {**SMALL, "tolerance": 1, "temperature": 0.1}
    record = prompts.read_file(writing.write_bank(TASK, "huggingface", out, model=str(folder), **options))
    assert torch.equal(before, torch.random.get_rng_state())  # whoever draws after it draws the same
    for group, written in record["groups"].items():
        assert [p["text"] for p in written["prompts"]] == recorded(group, 2)
    assert record["made_by"]["model"] == str(folder)
    assert record["made_by"]["rounds"] == dict.fromkeys(record["groups"], 1)


def test_a_model_that_knows_nothing_ends_in_one_line_and_a_record_of_what_it_said(ignorant, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "PER_PROMPT", 4)
    monkeypatch.setattr(writers, "BESIDE", 8)
    with pytest.raises(AimfairError, match="not finished after 2 rounds per group") as error:
        writing.write_bank(TASK, "huggingface", tmp_path / "bank.json", model=str(ignorant), rounds=2, **SMALL)
    assert "\n" not in str(error.value)
    made_by = json.loads((tmp_path / "bank.json.partial").read_text())["made_by"]
    assert made_by["rounds"] == dict.fromkeys(("0_0", "0_1", "1_0", "1_1"), 2) and made_by["refused"]
    ask = writers.huggingface(writers.Setup(TASK, model=str(ignorant), device="cpu")).ask
    one, same, other = (ask(writers.Request("1_0", 1, "Write prompts.", seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_models_that_cannot_be_asked(ignorant, tmp_path):
    def connect(**setup):
        return writers.huggingface(writers.Setup(TASK, device="cpu", **setup))

    with pytest.raises(AimfairError, match="which model"):
        connect()
    with pytest.raises(AimfairError, match=r"cannot load the language model .*none") as error:
        connect(model=str(tmp_path / "none"))
    assert "\n" not in str(error.value)
    model, _ = tiny(tmp_path / "silent", template=None)
    model.save_pretrained(tmp_path / "silent")
    with pytest.raises(AimfairError, match="has no chat template: take a model that follows instructions"):
        connect(model=str(tmp_path / "silent"))
    model, _ = tiny(tmp_path / "narrow", context=64)
    model.save_pretrained(tmp_path / "narrow")
    with pytest.raises(AimfairError, match=r"reads 64 tokens, the request alone has \d+: take another model"):
        connect(model=str(tmp_path / "narrow")).ask(writers.Request("1_0", 2, requests(2)["1_0"], 0))
    torch.save(model.state_dict(), tmp_path / "narrow" / "pytorch_model.bin")
    (tmp_path / "narrow" / "model.safetensors").unlink()
    with pytest.raises(AimfairError, match="cannot load the language model"):
        connect(model=str(tmp_path / "narrow"))
