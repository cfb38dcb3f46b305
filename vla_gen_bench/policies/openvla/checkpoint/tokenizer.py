"""Tokenizers: the checkpoint's `tokenizer.json`, and a small byte-level one for models trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.config import ACTION_BINS, CheckpointError, OpenVLAConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
UNKNOWN, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<PAD>"  # Llama 2's, and the padding token OpenVLA added
PROMPT = "In: What action should the robot take to {instruction}?\nOut: "
"""OpenVLA's template. The space at the end is a token of its own (29871 in Llama 2), the last one of every prompt."""


class PromptTokenizer:
    """Encodes instructions as prompts.

    Args:
        backend: A `tokenizers.Tokenizer`.
        config: The model it must fit.
        where: The tokenizer's name in messages.

    Raises:
        CheckpointError: The tokenizer has a different vocabulary.
    """

    def __init__(self, backend: Tokenizer, config: OpenVLAConfig, where: str = "tokenizer") -> None:
        self.backend, self.config = backend, config
        _check_vocabulary(backend, config, where)
        backend.encode_special_tokens = True  # "<s>" in an instruction is text, never BOS
        backend.no_padding()  # as transformers: padding settings saved in the file do not apply to prompts
        backend.no_truncation()
        if getattr(backend.model, "dropout", None):  # of BPE, for training: would split each prompt at random
            backend.model.dropout = None
        self.last_prompt_token = backend.encode(PROMPT, add_special_tokens=False).ids[-1]

    @classmethod
    def from_folder(cls, folder: Path, config: OpenVLAConfig) -> PromptTokenizer:
        """Reads `folder`/tokenizer.json."""
        library = need("tokenizers")
        file = folder / TOKENIZER_FILE
        if not file.is_file():
            raise CheckpointError(f"{folder}: no {TOKENIZER_FILE}; the checkpoint needs its tokenizer to read prompts")
        try:
            backend = library.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{file}: cannot be read: {error}") from None
        return cls(backend, config, str(file))

    def prompt(self, instruction: str) -> list[int]:
        """Returns the token ids of the prompt, BOS first.

        Args:
            instruction: May be empty, as in the rows of suites `controls` and `robustness` that take it away.

        Raises:
            UserError: The instruction is no text or only spaces, or the prompt leaves no room for image and actions.
        """
        if not isinstance(instruction, str) or instruction and not instruction.strip():
            raise UserError(f"instruction: expected a sentence, got {instruction!r}")
        ids = self._ids(instruction)
        if len(ids) > self.longest_prompt:
            raise UserError(
                f"instruction of {len(instruction)} characters makes a prompt of {len(ids)} tokens; this model takes "
                f"at most {self.longest_prompt}: '{instruction[:60]}...'"
            )
        return ids

    def prompt_within(self, instruction: str) -> list[int] | None:
        """Returns the token ids of the prompt, or None if it leaves no room for image and actions."""
        ids = self._ids(instruction)
        return ids if len(ids) <= self.longest_prompt else None

    def _ids(self, instruction: str) -> list[int]:
        text = PROMPT.format(instruction=instruction.lower())
        return [self.config.text.bos, *self.backend.encode(text, add_special_tokens=False).ids]

    def words(self, text: str) -> list[int]:
        """Returns the token ids of words as they are within a prompt, after a space."""
        return self.backend.encode(f" {text.lower()}", add_special_tokens=False).ids

    @property
    def longest_prompt(self) -> int:
        """The maximum prompt length: the model's positions minus image patches, action tokens and EOS."""
        actions = 7 * self.config.acting.chunk + 1
        return self.config.text.max_positions - self.config.patches - actions


def _check_vocabulary(backend: Tokenizer, config: OpenVLAConfig, where: str) -> None:
    size, base = backend.get_vocab_size(), config.base_vocab
    if not base <= size <= config.text.vocab:
        raise CheckpointError(
            f"{where}: has {size} tokens; the model was made for {base} and {config.pad_multiple} rows beyond"
        )
    for token, expected in ((BOS, config.text.bos), (EOS, config.text.eos), (PAD, config.pad)):
        found = backend.token_to_id(token)
        if found != expected and not (token == PAD and found is None):
            raise CheckpointError(f"{where}: token '{token}' has id {found}; the model expects {expected}")


def train_tokenizer(sentences: Iterable[str], base_vocab: int) -> Tokenizer:
    """Trains a byte-level BPE tokenizer of exactly `base_vocab` tokens; equal input gives equal output.

    Ids: `<unk>`, `<s>`, `</s>`, the 256 bytes, merges learned from `sentences` (as prompts), the prompt's two fixed
    pieces, names for unused ids, and the 256 action tokens at the end. Any text can be encoded. Encoding each piece as
    one token shortens a prompt from 19 to 7 tokens and makes a small model a quarter faster.

    Args:
        sentences: Instructions; repeated ones weigh more.
    """
    library = need("tokenizers")
    byte_level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = [piece.strip(" ") for piece in PROMPT.split("{instruction}")]
    pieces[-1] += " "  # the last token of every prompt
    text_vocab = base_vocab - ACTION_BINS - len(pieces)
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=text_vocab,
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((PROMPT.format(instruction=text.lower()) for text in sentences), trainer)
    spare = text_vocab - tokenizer.get_vocab_size()
    if spare < 0:
        raise UserError(f"a byte-level vocabulary needs {base_vocab - spare}, got {base_vocab}")
    tokenizer.add_tokens([library.AddedToken(piece, special=False, normalized=False) for piece in pieces])
    names = [f"<spare{i}>" for i in range(spare)] + [f"<action{i}>" for i in range(ACTION_BINS)]
    tokenizer.add_special_tokens([library.AddedToken(name, special=True) for name in names])
    return tokenizer


def benchmark_sentences(worlds: Iterable[str] = ("builtin", "rl4vla")) -> list[str]:
    """Returns every training instruction of the worlds: the text to train a tokenizer on.

    Unseen names and phrasings are excluded, so the tokenizer sees no held-out text either.
    """
    from vla_gen_bench.episodes.axes import phrasings
    from vla_gen_bench.episodes.catalog import load_catalog

    sentences = []
    for world in worlds:
        catalog = load_catalog(world)
        objects, receptacles = (
            [catalog.get(kind, id).name for id in catalog.ids(kind, "train")] for kind in ("objects", "receptacles")
        )
        sentences += [
            template.format(object=item, receptacle=place)
            for template in phrasings(world, "train")
            for item in objects
            for place in receptacles
        ]
    return sentences
