"""Makes a model of random weights and a tokenizer for it, in seconds. Runs in the engine's environment.

    python tiny_model.py FOLDER

As an engine sees it a Llama like any other; what it says is nonsense. With 115 million parameters a token takes some
12 ms on a CPU, so that the engine and not the HTTP server in front of it is what requests wait for.
"""

from __future__ import annotations

import random
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SYLLABLES = ("ka", "lo", "mi", "re", "tu", "sha", "ven", "dor", "pix", "quo", "zen", "bar", "el", "an", "is", "ou")
SPECIAL = ("<pad>", "<s>", "</s>")
VOCABULARY = 1024
HIDDEN = 1024
LAYERS = 12
HEAD = 32
CONTEXT = 2048


def tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    words = ["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4))) for _ in range(3000)]
    text = [" ".join(rng.choice(words) for _ in range(20)) for _ in range(2000)]
    made = Tokenizer(models.BPE(unk_token=None))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[2]
    )


def main() -> None:
    torch.manual_seed(0)
    words = tokenizer(random.Random(0))
    words.save_pretrained(sys.argv[1])
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // HEAD,
        num_key_value_heads=HIDDEN // HEAD // 2,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1], safe_serialization=True)


main()
