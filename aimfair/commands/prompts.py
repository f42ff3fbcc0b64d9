"""``aimfair prompts``: look at prompt banks, check them, have new ones written."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, group_of
from aimfair.environment import AimfairError

# The library is imported inside the functions: `aimfair --help` must not wait for torch.

ABOUT = """\
Prompt banks: what the text-to-image model is asked for. A bank has 50 sentences for each of the four groups of a task
(target x protected), each checked by code. The recorded ones came from a seeded grammar; a language model of yours can
write another one.

  aimfair prompts list
  aimfair prompts show celeba/Smiling_Male --group 1_0
  aimfair prompts check my-bank.json
  aimfair prompts write --task celeba/Smiling_Male --writer openai_compatible --url http://localhost:8000/v1 --model NAME"""


def command_prompts_list(options: argparse.Namespace) -> None:
    """List the prompt banks in data/prompts/, with how each was made.

    $ aimfair prompts list

    A name with an @ is a bank beside the recorded one: -p prompts=contextual@NAME takes it. utkface/Female_White says age,
    race and pose, as the captions of the tiny model do; utkface/Female_White@rich also says expression, hairstyle and a
    distinguishing feature, for larger models."""
    from aimfair import prompts

    for name in prompts.banks():
        record = prompts.read(name)
        each = sorted({len(group["prompts"]) for group in record["groups"].values()})
        made_by = record.get("made_by", {})
        by = f"{made_by['model']}, {made_by.get('date', '')}" if "model" in made_by else made_by.get("how", "")
        print(f"{name:32} {' to '.join(map(str, each))} prompts per group   {by}")


def command_prompts_show(options: argparse.Namespace) -> None:
    """Show the sentences of a bank, or what a language model is asked for.

    $ aimfair prompts show celeba/Smiling_Male
    $ aimfair prompts show celeba/Smiling_Male --variant no-pose --group 1_0
    $ aimfair prompts show utkface/Female_White --group 0_1 --instruction
    $ aimfair prompts show my-bank.json

    Groups are named by target and protected value: 1_0 in Smiling_Male are smiling women. Variants are the rows of the
    paper's Table 5: contextual (50 with head poses), contextual-25 (the first 25), no-pose (50 without), plain (one)."""
    from aimfair import prompts
    from aimfair.prompts import writing

    record = bank_named(options.bank)
    if options.variant not in prompts.VARIANTS:
        raise AimfairError(f"no variant {options.variant!r}; there are: {', '.join(prompts.VARIANTS)}")
    groups = list(record["groups"]) if options.group is None else [options.group]
    for name in groups:
        if name not in record["groups"]:
            raise AimfairError(f"no group {name!r}; there are: {', '.join(record['groups'])}")
        if options.instruction:
            empty = writing.empty_bank(record, {})
            print(f"--- group {name}\n{writing.request_text(empty, name, prompts.PER_GROUP)}\n")
            continue
        for id, text in prompts.VARIANTS[options.variant](record["groups"][name]):
            print(f"{id:10} {text}")


def command_prompts_check(options: argparse.Namespace) -> int:
    """Check a bank: is every label named, nothing contradictory, nothing twice, all within what CLIP reads, all even?

    $ aimfair prompts check celeba/Smiling_Male
    $ aimfair prompts check my-bank.json
    $ aimfair prompts check my-bank.json --tokenizer path/to/pipeline     count tokens as this model does

    One line per problem, and exit status 1 if there is one. Without --tokenizer tokens are counted rather too high."""
    from aimfair import prompts
    from aimfair.prompts import wording

    record = bank_named(options.bank)
    tokens = wording.token_counter(options.tokenizer) if options.tokenizer else wording.ESTIMATED
    problems = prompts.check(record, tokens)
    for problem in problems:
        print(problem)
    texts = [p["text"] for group in record["groups"].values() for p in group["prompts"]]
    longest = max(map(tokens.count, texts))
    found = f"{len(problems)} problems" if problems else "nothing found"
    print(
        f"{len(texts)} prompts, the longest {longest} of {tokens.limit} tokens{'' if options.tokenizer else ' at most'}: {found}"
    )
    return 1 if problems else 0


def command_prompts_write(options: argparse.Namespace) -> None:
    """Have a bank written by a language model: asked per group, each sentence checked, asked again for what is missing.

    $ aimfair prompts write --task celeba/Smiling_Male --writer huggingface --model Qwen/Qwen3-4B-Instruct-2507
    $ AIMFAIR_LLM_KEY=... aimfair prompts write --task utkface/Female_White --writer openai_compatible \\
          --url https://some.host/v1 --model NAME
    $ aimfair prompts write --task celeba/Male_Young --writer openai_compatible --url http://localhost:11434/v1 --model NAME

    Writers: huggingface, a model on this machine, by transformers; openai_compatible, any server with chat completions
    (hosted, vLLM, llama.cpp, Ollama); recorded, the bank that is there, through the same checks. A key comes from the
    environment variable AIMFAIR_LLM_KEY and is stored nowhere.

    The bank is written only when it is complete and even. Stop it at any time: what was accepted lies in a .partial file
    beside it, and the same command goes on. With the default place, data/prompts/<task>@<model>.json, a study takes it
    by -p prompts=contextual@<model>. You may edit the file: a study checks it again, and draws nothing from a faulty one."""
    from aimfair.prompts import wording, writing

    tokens = wording.token_counter(options.tokenizer) if options.tokenizer else wording.ESTIMATED
    names = ("model", "revision", "url", "device", "temperature", "timeout")
    path = writing.write_bank(
        options.task,
        options.writer,
        options.out,
        seed=options.seed,
        rounds=options.rounds,
        per_group=options.per_group,
        tolerance=options.tolerance,
        tokens=tokens,
        tell=lambda line: print(line, flush=True),
        **{name: getattr(options, name) for name in names},
    )
    print(f"The bank is in {path}")
    if "@" in path.stem:
        print(f"A study takes it by -p prompts=contextual@{path.stem.partition('@')[2]}")


def bank_named(name: str) -> dict[str, Any]:
    """The record of a bank in data/prompts, or of a file if ``name`` is the path of one."""
    from aimfair import prompts

    return prompts.read_file(Path(name)) if name.endswith((".json", ".partial")) else prompts.read(name)


def register(commands: Any) -> None:
    """Add ``aimfair prompts`` and its parts to the commands."""
    parts = group_of(commands, "prompts", "Prompt banks: list, show, check, write", ABOUT)
    add(parts, command_prompts_list, group="prompts")
    show, check, write = (
        add(parts, command, group="prompts")
        for command in (command_prompts_show, command_prompts_check, command_prompts_write)
    )
    for sub in (show, check):
        sub.add_argument("bank", metavar="BANK", help="<dataset>/<Target>_<Protected>, or the path of a JSON file")
    show.add_argument("--variant", default="contextual", help="contextual, contextual-25, no-pose, plain (contextual)")
    show.add_argument("--group", metavar="T_P", help="one group, such as 1_0 (all)")
    show.add_argument("--instruction", action="store_true", help="what a language model is asked, not what is recorded")
    write.add_argument("--task", required=True, help="<dataset>/<Target>_<Protected>, one of `aimfair prompts list`")
    write.add_argument("--writer", default="recorded", help="recorded, huggingface, openai_compatible (recorded)")
    write.add_argument("--model", default="", help="folder or hub name, or the name of the model at the endpoint")
    write.add_argument("--revision", default="", help="of a model of the hub: a branch, tag or commit")
    write.add_argument(
        "--url", default="", help="address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1"
    )
    write.add_argument("--out", metavar="FILE", help="where the bank goes (data/prompts/<task>@<model>.json)")
    write.add_argument("--seed", type=int, default=0, help="seed of the requests (0)")
    write.add_argument("--rounds", type=int, default=10, help="most requests per group (10)")
    write.add_argument("--temperature", type=float, help="how freely the model chooses (its own default)")
    write.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for one reply (300)")
    write.add_argument("--device", default="auto", help="of a local model: auto, cpu, cuda, cuda:1 (auto)")
    write.add_argument("--per-group", type=int, default=50, metavar="N", help="prompts of each group (50)")
    write.add_argument("--tolerance", type=float, default=0.1, help="largest difference of what is mentioned (0.1)")
    for sub in (check, write):
        sub.add_argument("--tokenizer", metavar="MODEL", help="count tokens as this text-to-image model does")
