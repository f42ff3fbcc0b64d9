"""A language model on this machine, from a folder or from the Hugging Face hub, by transformers' text generation."""

from __future__ import annotations

from typing import Any

import torch

from aimfair.environment import AimfairError
from aimfair.prompts.writers import Request, Setup, Writer, whole_lines

PER_PROMPT, BESIDE = 100, 500
"""New tokens allowed for each prompt that is asked for, and for what a model says or thinks beside them."""


def connect(setup: Setup) -> Writer:
    """See :mod:`aimfair.prompts.writers`.

    Raises AimfairError where the model cannot be loaded, has no weights as safetensors, or no chat template (it was not
    trained to follow instructions).
    """
    generator = _loaded(setup)
    name, tokenizer = setup.model, generator.tokenizer
    if not tokenizer.chat_template:
        raise AimfairError(
            f"{name} has no chat template: take a model that follows instructions (often called Instruct)"
        )
    context = getattr(generator.model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    sampling = {} if setup.temperature is None else {"temperature": setup.temperature}

    def ask(request: Request) -> str:
        chat = [{"role": "user", "content": request.text}]
        asked = len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
        room = min(PER_PROMPT * request.number + BESIDE, context - asked)
        if room < PER_PROMPT:
            raise AimfairError(f"{name} reads {context} tokens, the request alone has {asked}: take another model")
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            said = generator(chat, return_full_text=False, max_new_tokens=room, do_sample=True, **sampling)
        text = said[0]["generated_text"]
        cut = len(tokenizer(text, add_special_tokens=False)["input_ids"]) >= room - 1
        return whole_lines(text) if cut else text

    commit = getattr(generator.model.config, "_commit_hash", None)
    return Writer(ask, f"{name}@{commit}" if commit else name)


def _loaded(setup: Setup) -> Any:
    try:
        from transformers import pipeline
    except ImportError as error:
        raise AimfairError("a local model needs transformers: pip install 'aimfair[generate]'") from error
    if not setup.model:
        raise AimfairError(
            "which model? name a folder or a model of the Hugging Face hub, such as Qwen/Qwen3-4B-Instruct-2507"
        )
    try:
        return pipeline(
            "text-generation",
            model=setup.model,
            revision=setup.revision or None,
            device=None if setup.device == "auto" else setup.device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:200]
        raise AimfairError(f"cannot load the language model {setup.model}: {why}") from error
