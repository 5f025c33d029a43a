"""A tiny chat model in a folder, made in well under two seconds without a network.

It is a real Llama with a real tokenizer and a ChatML template, all weights random: it says nothing sensible, but every
code path that the real model takes works on it. `build_tiny_model(folder)` is what tests call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = END_OF_TEXT, TURN_START, TURN_END = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""In the order of their ids, which begin at 0."""

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful AI assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

CORPUS = (
    "You are a helpful AI assistant. system user assistant",
    "How are you today? What would you like to know about the sea, the stars and the weather?",
    "Tell me a short story about a friendly dog. Thank you very much for your kind answer!",
    "I think that you can learn to cook rice: boil water, add salt, wait for twelve minutes.",
)


def build_tiny_model(
    folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 4, heads: int = 4, context: int = 2048
) -> Path:
    """Writes config, weights (fp32 safetensors, tied head) and tokenizer to `folder` and returns it.

    The same arguments give the same files. Weights are drawn wide enough (sd 0.2) that the next-token distributions
    differ clearly from uniform, so a test that compares log-probs would see a wrong context or a wrong version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(context)
    tokenizer.save_pretrained(str(folder))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=context,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index(TURN_START),
        eos_token_id=SPECIAL.index(TURN_END),
        pad_token_id=SPECIAL.index(TURN_END),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(str(folder))
    return folder


def _tokenizer(context: int) -> Any:
    """Byte-level BPE: every text can be encoded, and some tokens are parts of characters, as in real models."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=core,
        bos_token=TURN_START,
        eos_token=TURN_END,
        pad_token=TURN_END,
        unk_token=END_OF_TEXT,
        chat_template=CHATML,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
