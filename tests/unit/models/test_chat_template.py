from __future__ import annotations

import os
import stat

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.chat_template import end_of_turn, render_chat
from ccrl_cli.models.modes import open_weights

MESSAGES = [{"role": "system", "content": "Find."}, {"role": "user", "content": "Mia left."}]
PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
TURNS = (
    "{% for m in messages %}{{'<|im_start|>'+m.role+'\n'+m.content+'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)


def tokenizer(template, eos="<|endoftext|>"):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = {t: i for i, t in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, chat_template=template
    )
    made.add_special_tokens({"additional_special_tokens": special[1:]})
    return made


def test_a_template_that_writes_all_is_used_as_it_is():
    assert render_chat(tokenizer(PLAIN), MESSAGES) == "<|system|>Find.<|user|>Mia left."


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ messages[0].content }}",
        "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
    ],
    ids=["refuses the system turn", "drops the system turn"],
)
def test_instructions_go_into_the_first_message_where_a_template_has_no_place_for_them(template):
    assert render_chat(tokenizer(template), MESSAGES) == "Find.\n\nMia left."


def test_a_template_that_wants_parts_gets_parts():
    parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }};{% endfor %}{% endfor %}"
    assert render_chat(tokenizer(parts), MESSAGES) == "Find.;Mia left.;"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "has no chat template"),
        ("Hello", "does not write out a prompt whole"),
        ("{{ raise_exception('never') }}", r"whole \(never\)"),
    ],
)
def test_a_template_that_loses_the_prompt_is_refused_before_anything_is_sampled(template, problem):
    with pytest.raises(PreconditionError, match=problem) as caught:
        render_chat(tokenizer(template), MESSAGES)
    assert caught.value.exit_code == 3
    assert "model" in caught.value.hint


def test_the_end_of_a_turn_is_the_token_behind_an_answer():
    # base models name another end token than their template writes
    made = tokenizer(TURNS)
    assert end_of_turn(made) == made.convert_tokens_to_ids("<|im_end|>") != made.eos_token_id
    assert end_of_turn(tokenizer(PLAIN)) is None
    assert end_of_turn(tokenizer(None)) is None


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_weights_get_the_mode_of_any_new_file(tmp_path):
    weights = tmp_path / "deep" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"x")
    weights.chmod(0o600)
    beside = tmp_path / "config.json"
    beside.write_text("{}", encoding="utf-8")
    open_weights(tmp_path)
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)
