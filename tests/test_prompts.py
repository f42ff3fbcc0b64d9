"""Prompt banks: what ships is what the grammar writes, nothing in them tells the target, and checks find what is wrong."""

import copy
import json
import re
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import write_banks as grammar

from aimfair import datasets, prompts
from aimfair.environment import AimfairError, home
from aimfair.faces import GROUPS
from aimfair.generate import corpora
from aimfair.prompts import coverage, wording
from aimfair.study import profiles

EVEN = {"made_by": {"tolerance": 0}}
TASKS = sorted(grammar.GRAMMARS)
POSE = re.compile(r"\bhead (turned|tilted|facing)\b")


@pytest.mark.parametrize("task", TASKS)
def test_shipped_bank_is_what_the_grammar_writes_and_passes_its_checks(task, tmp_path):
    written = grammar.write_bank(task, tmp_path / "bank.json")
    assert prompts.path_of(task).read_bytes() == written.read_bytes()
    assert prompts.check(prompts.read(task) | EVEN) == []


def test_every_shipped_bank_has_a_grammar_which_can_write_others():
    assert prompts.banks() == TASKS
    task = "faceworld/Smiling_Male"
    assert grammar.make(task, seed=1) != grammar.make(task, seed=0)
    assert prompts.check(grammar.make(task, seed=1) | EVEN) == []


@pytest.mark.parametrize("task", TASKS)
def test_variants(task):
    full, first, still, plain = (prompts.bank(task, v) for v in ("contextual", "contextual-25", "no-pose", "plain"))
    for variant, size in ((full, 50), (first, 25), (still, 50), (plain, 1)):
        assert [(p.target, p.protected) for p in variant] == [group for group in GROUPS for _ in range(size)]
        assert len({p.id for p in variant}) == len({p.text for p in variant}) == 4 * size
    assert first == [p for p in full if int(p.id.split("/")[1]) < 25]
    assert [p.id for p in still] == [p.id for p in full]
    assert all(POSE.search(p.text) for p in full)
    assert not any(POSE.search(p.text) for p in still + plain)


@pytest.mark.parametrize("variant", ["contextual", "contextual-25", "no-pose"])
@pytest.mark.parametrize("task", TASKS)
def test_words_do_not_tell_the_target(task, variant):
    """Without the words that name the target, the prompts of both targets are the same: so are all frequencies."""
    target = task.split("/")[1].split("_")[0]
    names = [re.compile(rf"\b({'|'.join(words)})\b") for words in prompts.WORDS[target]]
    bank = prompts.bank(task, variant)
    for value in (0, 1):
        said = [
            Counter(
                names[t].sub("", p.text).replace(" an ", " a ") for p in bank if (p.target, p.protected) == (t, value)
            )
            for t in (0, 1)
        ]
        assert said[0] == said[1]


@pytest.mark.parametrize("task", [task for task in TASKS if not task.startswith("utkface")])
def test_gender_typical_attributes_follow_gender(task):
    typical_of_men = {"beard", "goatee", "mustache", "stubble", "sideburns", "necktie", "bald", "receding"}
    for prompt in prompts.bank(task):
        words = set(re.findall(r"\w+", prompt.text))
        assert ("male" in words) != ("female" in words)
        assert not words & ({"lipstick", "makeup", "earrings", "necklace"} if "male" in words else typical_of_men)
        assert "Male_Young" not in task or not any(wording.says(prompt.text, word) for word in coverage.GENDERED)
    if task.endswith("Smiling_Young"):  # the gender is free, and even
        males = Counter((p.target, p.protected) for p in prompts.bank(task) if " male" in p.text)
        assert males == dict.fromkeys(GROUPS, 25)


def test_coverage_is_even():
    """Every option of a grammar is used, about as often as it stands in its slot."""
    for task, slots in (("faceworld/Smiling_Male", grammar.FACEWORLD), ("celeba/Smiling_Male", grammar.CELEBA)):
        group = prompts.read(task)["groups"]["1_1"]["prompts"]
        said = Counter(phrase for p in group for phrase in p["attributes"])
        for options in slots.values():
            for _, phrase in set(options) - {("", "")}:
                expected = 50 * sum(phrase == man for _, man in options) / len(options)
                assert abs(said[phrase] - expected) < 3, (phrase, said[phrase], expected)
        poses = Counter(p["pose"] for p in group)
        assert set(poses) == set(grammar.POSES) and max(poses.values()) - min(poses.values()) <= 1


def test_utkface_ages_and_races():
    records = prompts.read("utkface/Female_White")["groups"]["0_0"]["prompts"]
    ages = sorted(int(p["attributes"][0].split()[0]) for p in records)
    assert (ages[0], ages[-1], len(set(ages))) == (1, 90, 50) and max(np.diff(ages)) <= 5
    races = Counter(p["attributes"][1] for p in records)
    assert set(races) == set(wording.NON_WHITE) and max(races.values()) - min(races.values()) <= 1


def test_the_rich_bank_of_utkface_varies_looks_beside_age_and_race():
    group = prompts.read("utkface/Female_White@rich")["groups"]["0_0"]["prompts"]
    said = Counter(what for p in group for what in p["attributes"])
    assert sum(said[f"{age} year old"] for age in grammar.AGES) == 50 and max(said.values()) <= 10
    for slot, options in grammar.PEOPLE.items():
        often = [said[phrase] for phrase, _ in set(options) if phrase]
        assert min(often) >= 3 and max(often) <= 10, slot
    for prompt in group:
        age = int(prompt["attributes"][0].split()[0])
        assert all(low <= age <= high for what, (low, high) in grammar.OF_AGE.items() if what in prompt["text"])
        assert not {word for word in coverage.GENDERED if wording.says(prompt["text"], word)}
    bank = prompts.bank("utkface/Female_White", "contextual@rich")
    looks = {
        tuple(re.sub(r"(?<=year old ).*male", "", p.text) for p in bank if (p.target, p.protected) == g) for g in GROUPS
    }
    assert len(looks) == 1 and bank != prompts.bank("utkface/Female_White")  # all four look alike but for their labels


def test_faceworld_prompts_speak_like_its_captions():
    world = datasets.load("faceworld", style="web", train=0, validation=0, test=0, corpus=4000)
    captions = corpora.write_captions(corpora.faceworld_caption, world.attributes, range(4000))
    known = Counter(word for text in captions for word in re.findall(r"\w+", text))
    for task in TASKS:
        if task.startswith("faceworld"):
            used = {w for p in prompts.bank(task) for w in re.findall(r"\w+", p.text)}
            assert not {word for word in used if known[word] < 20}


def test_sentences():
    assert prompts.sentence("smiling male") == "Portrait face photo of a smiling male."
    assert prompts.sentence("old male", ["x"]) == "Portrait face photo of an old male with x."
    assert prompts.sentence("25 year old", ["x", "y"]).endswith("a 25 year old with x and y.")
    assert prompts.sentence("18 year old", ["x", "y", "z"]).endswith("an 18 year old with x, y, and z.")
    articles = {age: prompts.sentence(f"{age} year old").split()[4] for age in range(1, 100)}
    assert {age for age, article in articles.items() if article == "an"} == {8, 11, 18, *range(80, 90)}


def test_instruction_has_the_six_parts():
    record = prompts.read("celeba/Young_Male")
    text = prompts.instruction(record, "1_0")
    assert "50" in text and ": young\n" in text and ": female\n" in text
    assert "eyeglasses" in text and "head tilted slightly upward" in text and "Portrait face photo of a" in text
    assert "{" not in text


def faulty(change):
    record = copy.deepcopy(prompts.read("celeba/Smiling_Male"))
    change(record["groups"]["1_0"]["prompts"])
    return prompts.check(record)


def swap(old, new):
    def change(group):
        found = next(p for p in group if old in p["text"])
        for key in ("text", "without_pose"):
            found[key] = found[key].replace(old, new)

    return change


def lipstick_for_all(group):
    for p in group:
        p["attributes"].append("lipstick")
        for key in ("text", "without_pose"):
            p[key] = p[key].replace(" with ", " with lipstick and ", 1)


FAULTS = {
    "does not name Smiling = 1": swap("smiling", "happy"),
    "names Smiling = 0": swap("smiling", "smiling serious"),
    "does not name Male = 0": swap("female", "person"),
    "names Male = 1": swap("female", "female or male"),
    "both 'female' and 'beard'": swap("female", "bearded female with a beard"),
    "both 'brown hair' and 'bald'": swap("brown hair", "brown hair, a bald head"),
    "both 'left' and 'right'": swap("slightly left", "slightly left and right"),
    "tokens, CLIP reads 77": swap("smiling", "smiling " + "very " * 60),
    "does not say 'eyeglasses'": swap("eyeglasses", "spectacles"),
    "49 prompts, 50 are wanted": lambda group: group.pop(),
    "more than once": lambda group: group.__setitem__(3, {**group[4], "id": "1_0/03"}),
    "id '1_0/04' is there more than once": lambda group: group[3].update(id="1_0/04"),
    "without_pose 'Portrait": lambda group: group[3].update(without_pose=group[4]["without_pose"]),
    "without pose says": lambda group: group[0].update(without_pose=group[0]["text"]),
    "'lipstick' is said": lipstick_for_all,
    "'old' is said": lambda group: [swap("young", "old")(group) for _ in range(6)],
    "says what is not there: 'without'": swap(" with ", " without "),
    "(say one of: female, woman, girl)": swap("female", "lady"),
    "both 'old' and 'young'": swap(" young", " old but young"),
    "both 'female' and 'moustache'": swap("eyeglasses", "eyeglasses, a moustache"),
    "both 'bald' and 'ponytail'": swap("black hair", "a bald head, a ponytail"),
    "'mascara' is said 0 times for Smiling = 0 and 9 times for 1": lambda group: whisper(group, "mascara", 9),
    "'anything about headwear' is said": lambda group: whisper(group, "a beanie", 9),
    "is in 50 prompts, more than half": lambda group: [p.update(pose="head facing the camera") for p in group],
}


def whisper(group, word, times):
    """The texts say it, and declare nothing."""
    for p in group[:times]:
        p.update({key: p[key].replace(".", f", {word}.") for key in ("text", "without_pose")})


def test_check_finds_what_is_spread_unevenly_over_the_protected_value():
    record = copy.deepcopy(prompts.read("celeba/Smiling_Male"))
    for p in record["groups"]["0_1"]["prompts"] + record["groups"]["1_1"]["prompts"]:
        p["attributes"] = [a.replace("eyeglasses", "freckles") for a in p["attributes"]]
        p.update({key: p[key].replace("eyeglasses", "freckles") for key in ("text", "without_pose")})
    assert prompts.check(record) == ["'anything about glasses' is said 12 times for Male = 0 and 0 times for 1"]
    assert prompts.check(record | {"made_by": {"tolerance": 0.12}}) == []


@pytest.mark.parametrize("problem", FAULTS)
def test_check_finds(problem):
    assert any(problem in line for line in faulty(FAULTS[problem])), faulty(FAULTS[problem])


@pytest.mark.parametrize("place", ["text", "without_pose", "plain"])
def test_every_sentence_that_can_be_drawn_is_checked(place):
    record = copy.deepcopy(prompts.read("celeba/Smiling_Male"))
    group = record["groups"]["1_0"]
    said, key = (group["plain"], "text") if place == "plain" else (group["prompts"][7], place)
    said[key] = said[key].replace("smiling", "smiling but serious")
    assert prompts.check(record) == [f"{said['id']}: names Smiling = 0 ({said[key]})"]


def test_tokens_and_what_is_not_there():
    text, values = "Portrait face photo of a smiling male.", {"Smiling": 1, "Male": 1}
    assert wording.faults(text, values, wording.Tokens(lambda text: 77)) == []
    assert wording.faults(text, values, wording.Tokens(lambda text: 78)) == ["78 tokens, CLIP reads 77"]
    for word in ("no", "not", "without", "never", "neither", "nor"):
        found = wording.faults(text.replace(".", f" {word} hat."), values)
        assert found == [f"says what is not there: {word!r}"]


@pytest.mark.parametrize("name", ["Smiling", "Male"])
@pytest.mark.parametrize("value", [0, 1])
def test_no_word_of_the_other_value_passes(name, value):
    """ "Portrait face photo of a smiling lady" is no smiling male."""
    right = {"Smiling": 1 - value, "Male": 1 - value}
    own = f"{wording.WORDS['Smiling'][1 - value][0]} {wording.WORDS['Male'][1 - value][0]}"
    assert wording.faults(f"Portrait face photo of a {own}.", right) == []
    for word in wording.HINTS[name][value] + wording.WORDS[name][value]:
        assert f"names {name} = {value}" in wording.faults(f"Portrait face photo of a {own}, {word}.", right)


def test_what_the_rules_do_not_mean():
    for text, values in (
        ("Portrait face photo of a white male with black curly hair.", {"Female": 0, "White": 1}),
        ("Portrait face photo of a Black female with a white hat.", {"Female": 1, "White": 0}),
        ("Portrait face photo of a young male, 20 years old.", {"Young": 1, "Male": 1}),
        ("Portrait face photo of a smiling 20 year old young male.", {"Smiling": 1, "Male": 1}),
        (
            "Portrait face photo of a smiling female with a bow in her hair, notable freckles.",
            {"Smiling": 1, "Male": 0},
        ),
    ):
        assert wording.faults(text, values) == []


def test_tokens_are_counted_exactly_or_rather_too_high():
    record = prompts.read("celeba/Smiling_Male")
    assert any("tokens" in line for line in prompts.check(record, wording.Tokens(len)))
    count, limit = tokens = wording.token_counter(str(home() / "data/tiny-sd/faceworld"))
    assert limit == 40 and count("") == 2 and count("male") == 3
    assert prompts.check(prompts.read("faceworld/Smiling_Male"), tokens) == []
    for text in ("", "male", "Portrait, of a 25-year-old... (serious) lady's man!", "5 o'clock_shadow --"):
        assert wording.FEWEST.count(text) <= count(text)
    with pytest.raises(AimfairError, match="holds no tokenizer"):
        wording.token_counter(str(home() / "data/prompts"))
    exact = {  # by CLIP's own tokenizer, with begin and end
        "Portrait face photo of a smiling male.": 10,
        "Portrait face photo of a 25 year old East Asian female with head facing the camera.": 20,
        "Portrait face photo of a serious female with wavy black hair, pale skin, earrings, and head tilted up.": 25,
        "Portrait face photo of a 25-year-old bespectacled gentleman with five-o'clock shadow.": 25,
    }
    for text, n in exact.items():
        assert n <= wording.estimated_tokens(text) <= 2 * n


def test_colour_of_hair_is_no_race():
    record = copy.deepcopy(prompts.read("utkface/Female_White"))
    for group in record["groups"].values():
        for p in group["prompts"]:
            p["text"], p["without_pose"] = (
                p[k].replace("male", "male with black hair") for k in ("text", "without_pose")
            )
    assert prompts.check(record) == []


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one bank; returns the path of its file."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    return grammar.write_bank("faceworld/Smiling_Male")


def edited(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r["groups"].pop("0_1"), "0_1"),
        (lambda r: r["groups"]["1_0"]["prompts"][3].pop("text"), "1_0"),
        (lambda r: r["groups"]["1_0"]["prompts"][3].update(text=7), "1_0"),
        (lambda r: r["groups"]["1_1"]["prompts"].clear(), "1_1"),
        (lambda r: r["groups"]["0_0"].pop("plain"), "0_0"),
        (lambda r: r["groups"].update({"0_0": []}), "0_0"),
        (lambda r: r.pop("groups"), "groups"),
    ],
)
def test_a_broken_bank_names_file_and_group(checkout, change, named):
    edited(checkout, change)
    with pytest.raises(AimfairError) as error:
        prompts.bank("faceworld/Smiling_Male")
    assert str(checkout) in str(error.value) and named in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_there(checkout, tmp_path):
    for task, variant, said in (
        ("faceworld/Bald_Male", "plain", r"no prompt bank 'faceworld/Bald_Male'.*faceworld/Smiling_Male"),
        ("faceworld/Smiling_Male", "poetic", r"no prompt variant 'poetic'.*no-pose"),
        ("faceworld/Smiling_Male", "no-pose@yours", r"no prompt bank 'faceworld/Smiling_Male@yours'"),
    ):
        with pytest.raises(AimfairError, match=said):
            prompts.bank(task, variant)
    with pytest.raises(AimfairError, match="no grammar for"):
        grammar.make("faceworld/Bald_Male")
    checkout.write_text("{")
    with pytest.raises(AimfairError, match="restore the file"):
        prompts.bank("faceworld/Smiling_Male")
    with pytest.raises(AimfairError, match="cannot be read"):
        prompts.read_file(tmp_path / "none.json")
    with pytest.raises(AimfairError, match="cannot write"):
        prompts.write({}, checkout / "bank.json")


def test_a_bank_beside_the_recorded_one_is_taken_by_its_name(checkout):
    record = grammar.make("faceworld/Smiling_Male", seed=1)
    prompts.write(record, prompts.path_of("faceworld/Smiling_Male@mine"))
    assert prompts.banks() == ["faceworld/Smiling_Male", "faceworld/Smiling_Male@mine"]
    mine = prompts.bank("faceworld/Smiling_Male", "no-pose@mine")
    assert [p.text for p in mine][:50] == [p["without_pose"] for p in record["groups"]["0_0"]["prompts"]]


def test_a_bank_is_checked_when_it_is_drawn_from(checkout):
    mine = prompts.path_of("faceworld/Smiling_Male@mine")
    prompts.write(grammar.make("faceworld/Smiling_Male"), mine)

    def bearded(record):
        first = record["groups"]["1_0"]["prompts"][0]
        for key in ("text", "without_pose"):
            first[key] = first[key].replace("female", "female with a beard")

    edited(mine, bearded)
    assert prompts.read("faceworld/Smiling_Male@mine")  # looking at it is no use of it
    says = r"@mine.json: 1_0/00: both .* \(and 1 more\); `aimfair prompts check faceworld/Smiling_Male@mine` shows"
    for variant in ("contextual", "plain"):
        with pytest.raises(AimfairError, match=says):
            prompts.bank("faceworld/Smiling_Male", f"{variant}@mine")
    assert len(prompts.bank("faceworld/Smiling_Male")) == 200


def test_a_bank_is_checked_as_it_was_written(checkout):
    """Fewer prompts per group, or a wider tolerance, are no fault of a bank that was made so."""

    def small(record):
        for group in record["groups"].values():
            del group["prompts"][6:]
        record["groups"]["1_1"]["prompts"][0]["text"] = record["groups"]["1_1"]["prompts"][0]["without_pose"]
        record["groups"]["1_1"]["prompts"][0]["pose"] = ""
        record["made_by"]["tolerance"] = 0.2

    edited(checkout, small)
    for change, says in (
        ({}, "group 0_0: 6 prompts, 50 are wanted"),
        ({"per_group": 6}, None),
        ({"tolerance": 0.1}, r"is said .*`aimfair prompts check"),
        ({"per_group": 7}, "group 0_0: 6 prompts, 7 are wanted"),
        ({"per_group": "many"}, "made_by.per_group: Input should be a valid integer"),
        ({"per_group": 0}, "made_by.per_group: Input should be greater"),
        ({"per_group": 6, "tolerance": -1}, "made_by.tolerance: Input should be greater"),
    ):
        edited(checkout, lambda record, change=change: record["made_by"].update(change))
        with pytest.raises(AimfairError, match=says) if says else nullcontext():
            assert len(prompts.bank("faceworld/Smiling_Male")) == 24
    edited(checkout, lambda record: record.update(made_by=None))
    with pytest.raises(AimfairError, match="made_by: Input should be a valid dictionary"):
        prompts.bank("faceworld/Smiling_Male")


def test_a_bank_is_for_the_task_that_it_is_named_after(checkout):
    prompts.write(prompts.read("faceworld/Smiling_Male"), prompts.path_of("faceworld/Young_Male"))
    with pytest.raises(AimfairError, match=r"Young_Male.json holds prompts for Smiling_Male: name the file after it"):
        prompts.bank("faceworld/Young_Male")
    record = prompts.read("faceworld/Smiling_Male") | {"target": "Bald"}
    prompts.write(record, prompts.path_of("faceworld/Bald_Male"))
    with pytest.raises(AimfairError, match="which words name Bald.* add a line to WORDS"):
        prompts.bank("faceworld/Bald_Male")


def test_a_profile_may_name_a_bank():
    assert profiles.load("demo", prompts="contextual-25@mine").prompts == "contextual-25@mine"
    with pytest.raises(AimfairError, match="prompts must be one of contextual"):
        profiles.load("demo", prompts="mine@contextual")


def test_the_recorded_banks_are_those_of_the_published_runs_and_a_changed_one_has_a_digest(tmp_path, monkeypatch):
    for task in prompts.banks():
        name, at, mine = task.partition("@")
        assert prompts.identity(name, f"no-pose{at}{mine}") == f"no-pose{at}{mine}"
    assert prompts.identity("faceworld/Nothing_Male", "plain") == "plain"
    monkeypatch.setattr(prompts, "path_of", lambda task: tmp_path / "bank.json")
    (tmp_path / "bank.json").write_text('{"groups": {}}')
    assert re.fullmatch("plain@mine#[0-9a-f]{8}", prompts.identity("faceworld/Smiling_Male", "plain@mine"))
