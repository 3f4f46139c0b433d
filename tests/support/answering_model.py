"""A Llama of 2 layers over bytes, trained in seconds to give one answer to every prompt."""

from __future__ import annotations

import random
from pathlib import Path

ANSWER = '[{"text": "NASA", "type": "agency"}, {"text": "Juno", "type": "space probe"}]'
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("NASA", "sent", "Juno", "to", "Jupiter.", "ESA", "launched", "Nothing", "here", "xxxx")
SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")


def byte_tokenizer():
    """Return a tokenizer with a token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=SPECIAL[0], eos_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[1]], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_answering_model(folder: Path, *, steps: int = 250) -> Path:
    """Train the model to answer `ANSWER` to any prompt, and write it; raises if it does not."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        tie_word_embeddings=True, eos_token_id=2, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    answer = [*_encode(tokenizer, ANSWER), 2]
    rng = random.Random(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
        for _ in range(steps):
            ids = torch.tensor([[*row, *answer] for row in _prompts(tokenizer, rng)])
            labels = ids.clone()
            labels[:, : -len(answer)] = -100
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
            decay.step()
            optimizer.zero_grad()
    if loss.item() > 0.05:
        raise RuntimeError(f"the answering model did not learn its answer: loss {loss.item():.3f}")
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _prompts(tokenizer, rng: random.Random) -> list[list[int]]:
    """Return 4 prompts of one length about texts of words and noise, as the compact template."""
    from ccrl_cli.data.prompts import COMPACT, TypeNames, render

    types = rng.choice((("agency", "space_probe"), ("rocket", "mission", "scientist")))
    messages = render(COMPACT, "\u2603", types, TypeNames.build(types))
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, after = (_encode(tokenizer, part) for part in rendered.split("\u2603"))
    length = rng.randint(0, 110)
    rows = []
    for _ in range(4):
        noise = ["".join(chr(rng.randint(33, 8300)) for _ in range(4)) for _ in range(6)]
        text = "".join(
            rng.choice([*WORDS, *noise]) + rng.choice((" ", " ", "  ")) for _ in range(length)
        )
        rows.append([*before, *_encode(tokenizer, text)[:length], *after])
    return rows


def _encode(tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def write_adapter(base: Path, folder: Path, *, scale: float = 0.05) -> Path:
    """Write a LoRA adapter with random weights, as ``ccrl train`` names its files."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from ccrl_cli.models.loading import save_adapter

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        wrapped = get_peft_model(model, config)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=scale)
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(wrapped, folder, base=str(base))
    return folder
