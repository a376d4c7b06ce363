"""Makes what the tests of the formats compare with: small checkpoints of every kind, and checksums of their tensors.

    python formats.py ../SpeechModelTests/Fixtures [directory of Whisper tiny.en, as CTranslate2]

Needs torch, transformers 4.40.2, safetensors and ctranslate2. Every tensor is read by those libraries (CTranslate2's
by the few lines below, after its own model_spec.py), brought into the normalised form with numpy, and described by its
shape and the CRC-32 of its bytes.
"""
import json, os, shutil, struct, sys, tempfile, zlib
from collections import OrderedDict
import numpy as np, torch
from safetensors.torch import load_file
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer, WhisperTokenizerFast
import ctranslate2

fixtures = os.path.abspath(sys.argv[1])
torch.manual_seed(7)


def normalised(weights, layers, whisper):
    """The tensors by their normalised names, from transformers' names without `model.`."""
    result = {}
    for name, value in weights.items():
        value = value.astype(np.float32)
        if name in ("lm_head.weight", "proj_out.weight"):
            continue
        if value.ndim == 3:
            value = value.transpose(0, 2, 1)
        if any(f".{p}_proj." in name for p in "kv") or ".self_attn.q_proj." in name:
            continue
        result[name] = value
    for side in ("encoder", "decoder"):
        for layer in range(layers[side]):
            for kind, fused, parts in (("self_attn", "qkv_proj", "qkv"), ("encoder_attn", "kv_proj", "kv")):
                p = f"{side}.layers.{layer}.{kind}"
                if f"{p}.v_proj.weight" not in weights:
                    continue
                bias = {x: weights.get(f"{p}.{x}_proj.bias") for x in parts}
                zero = np.zeros_like(bias["v"])
                result[f"{p}.{fused}.weight"] = np.concatenate([weights[f"{p}.{x}_proj.weight"] for x in parts])
                result[f"{p}.{fused}.bias"] = np.concatenate([zero if bias[x] is None else bias[x] for x in parts])
    return result


def described(tensors):
    return {
        name: [list(value.shape), zlib.crc32(np.ascontiguousarray(value, dtype="<f4").tobytes())]
        for name, value in sorted(tensors.items())
    }


def hugging_face(state):
    return {k.removeprefix("model."): v.float().numpy() for k, v in state.items()}


def ctranslate2_variables(path):
    data, at = open(path, "rb").read(), 0

    def number(kind):
        nonlocal at
        value = struct.unpack_from("<" + kind, data, at)[0]
        at += struct.calcsize("<" + kind)
        return value

    def string():
        nonlocal at
        length = number("H")
        value = data[at : at + length - 1].decode()
        at += length
        return value

    number("I"), string(), number("I")
    variables = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind, length = number("B"), number("I")
        if kind == 5:
            value = torch.frombuffer(bytearray(data[at : at + length]), dtype=torch.bfloat16).float().numpy()
        else:
            value = np.frombuffer(data, [np.float32, np.int8, np.int16, np.int32, np.float16][kind],
                                  length // [4, 1, 2, 4, 2][kind], at)
        variables[name] = value.reshape(shape)
        at += length
    return variables


def ctranslate2_normalised(path):
    variables, result = ctranslate2_variables(path), {}
    inside = {
        "self_attention/layer_norm": "self_attn_layer_norm", "self_attention/linear_0": "self_attn.qkv_proj",
        "self_attention/linear_1": "self_attn.out_proj", "attention/layer_norm": "encoder_attn_layer_norm",
        "attention/linear_0": "encoder_attn.q_proj", "attention/linear_1": "encoder_attn.kv_proj",
        "attention/linear_2": "encoder_attn.out_proj", "ffn/layer_norm": "final_layer_norm", "ffn/linear_0": "fc1",
        "ffn/linear_1": "fc2", "layer_norm": "layer_norm", "conv1": "conv1", "conv2": "conv2",
        "embeddings": "embed_tokens", "position_encodings": "embed_positions",
    }
    for name, value in variables.items():
        if value.ndim == 0 or name.endswith("_scale") or name.startswith("decoder/projection"):
            continue
        if value.dtype == np.int8:
            value = value.astype(np.float32) / variables[name + "_scale"].reshape([-1] + [1] * (value.ndim - 1))
        if value.ndim == 3:
            value = value.transpose(0, 2, 1)
        side, rest = name.split("/", 1)
        if rest == "alignment_heads":
            continue
        layer, rest = rest.split("/", 1) if rest.startswith("layer_") and rest[6].isdigit() else ("", rest)
        part, kind = rest.rsplit("/", 1)
        kind = {"gamma": "weight", "beta": "bias", "encodings": "weight"}.get(kind, kind)
        middle = f"layers.{layer[6:]}." if layer else ""
        result[f"{side}.{middle}{inside[part]}.{kind}"] = value.astype(np.float32)
    return result


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def save_tiny_whisper(directory):
    """A random Whisper with the special tokens of a multilingual one, in bfloat16."""
    tokens = byte_alphabet() + ["Ġt", "he", "Ġthe", ""]
    end = len(tokens)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|haw|>", "<|translate|>",
               "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{index * 0.02:.2f}|>" for index in range(8)]
    size = end + len(special) + len(times)
    config = WhisperConfig(
        vocab_size=size, num_mel_bins=80, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=48, max_source_positions=50,
        max_target_positions=24, pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=end + 1,
        suppress_tokens=[1, 2, 7, end + 1], begin_suppress_tokens=[220, end], torch_dtype="bfloat16")
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn_like(value) * 0.3)
    model = model.to(torch.bfloat16)
    g = model.generation_config
    g.is_multilingual, g.no_timestamps_token_id, g.prev_sot_token_id = True, end + 10, end + 8
    g.lang_to_id = {f"<|{code}|>": end + 2 + index for index, code in enumerate(["en", "de", "haw"])}
    g.task_to_id = {"translate": end + 5, "transcribe": end + 6}
    g.suppress_tokens, g.begin_suppress_tokens = [1, 2, 7, end + 1], [220, end]
    g.max_length, g.num_beams, g.length_penalty = 20, 3, 0.5
    model.save_pretrained(directory, safe_serialization=True)
    with open(f"{directory}/vocab.json", "w") as file:
        json.dump({token: index for index, token in enumerate(tokens)}, file)
    with open(f"{directory}/added_tokens.json", "w") as file:
        json.dump({token: end + index for index, token in enumerate(special)}, file)
    return tokens + special + times


def save_tokenizer(vocabulary, directory):
    """tokenizer.json in the layout of Whisper's, its times among the added tokens as in newer ones."""
    first = vocabulary.index("<|endoftext|>")
    added = [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for index, token in enumerate(vocabulary) if index >= first]
    model = {"type": "BPE", "dropout": None, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
             "end_of_word_suffix": "", "fuse_unk": False,
             "vocab": {token: index for index, token in enumerate(vocabulary[:first])},
             "merges": ["Ġ t", "h e", "Ġt he"]}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
             "post_processor": None,
             "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, "model": model}
    with open(f"{directory}/tokenizer.json", "w") as file:
        json.dump(whole, file, ensure_ascii=False)


class Converter(ctranslate2.converters.TransformersConverter):
    """CTranslate2 has since taken up a keyword that transformers 4.40 spells otherwise."""

    def load_model(self, model_class, name, **keywords):
        if "dtype" in keywords:
            keywords["torch_dtype"] = keywords.pop("dtype")
        return super().load_model(model_class, name, **keywords)


def save_ctranslate2(source, vocabulary, directory, quantization):
    """What ct2-transformers-converter makes of it; its vocabulary.json is padded to the embeddings' rows."""
    shutil.rmtree(directory, ignore_errors=True)
    converter = Converter(source, copy_files=["generation_config.json"])
    converter.convert(directory, quantization=quantization)


def save_torch_variants(directory):
    os.makedirs(directory, exist_ok=True)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    state = module.state_dict()
    torch.save(state, f"{directory}/ordered.bin")
    torch.save(state, f"{directory}/legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))}, f"{directory}/parameter.bin")
    torch.save({"a": torch.arange(6.0).reshape(2, 3).t()}, f"{directory}/transposed.bin")
    torch.save({"a": torch.arange(12.0).reshape(4, 3)[1:3]}, f"{directory}/view.bin")
    torch.save({"h": torch.arange(5).half(), "b": torch.arange(5).bfloat16(), "l": torch.arange(5),
                "d": torch.arange(5).double(), "e": torch.zeros(0, 4), "s": torch.tensor(2.5)}, f"{directory}/types.bin")
    torch.save(module, f"{directory}/module.bin")
    torch.save(state, f"{directory}/protocol4.bin", pickle_protocol=4)
    golden = {}
    for name in ("ordered", "parameter", "view", "types"):
        tensors = torch.load(f"{directory}/{name}.bin")
        golden[name] = described({key: value.detach().float().numpy() for key, value in tensors.items()})
    return golden


golden = {"torch": save_torch_variants(f"{fixtures}/torch-variants")}
golden["memorised-s2t"] = described(normalised(
    hugging_face(torch.load(f"{fixtures}/memorised-s2t/pytorch_model.bin")), {"encoder": 2, "decoder": 2}, False))
golden["random-s2t"] = described(normalised(
    hugging_face(load_file(f"{fixtures}/random-s2t/model.safetensors")), {"encoder": 2, "decoder": 2}, False))

tiny = f"{fixtures}/tiny-whisper"
os.makedirs(tiny, exist_ok=True)
vocabulary = save_tiny_whisper(tiny)
golden["tiny-whisper"] = described(normalised(
    hugging_face(load_file(f"{tiny}/model.safetensors")), {"encoder": 2, "decoder": 3}, True))
with tempfile.TemporaryDirectory() as source:
    for name in os.listdir(tiny):
        shutil.copy(f"{tiny}/{name}", source)
    for name in ("vocab.json", "added_tokens.json"):
        os.remove(f"{source}/{name}")
    save_tokenizer(vocabulary, source)
    WhisperTokenizerFast(tokenizer_file=f"{source}/tokenizer.json").save_pretrained(f"{source}/saved")
    shutil.copy(f"{source}/saved/tokenizer_config.json", source)
    for kind in ("float16", "bfloat16", "int8_float16"):
        name = f"tiny-whisper-ctranslate2-{kind}"
        save_ctranslate2(source, vocabulary, f"{fixtures}/{name}", kind)
        golden[name] = described(ctranslate2_normalised(f"{fixtures}/{name}/model.bin"))
    shutil.copy(f"{source}/tokenizer.json", f"{fixtures}/tiny-whisper-ctranslate2-int8_float16/tokenizer.json")

for argument in sys.argv[2:]:
    name = os.path.basename(os.path.abspath(argument))
    golden[name] = described(ctranslate2_normalised(f"{argument}/model.bin"))

with open(f"{fixtures}/formats-golden.json", "w") as file:
    json.dump({"vocabulary": vocabulary, "tensors": golden}, file, separators=(",", ":"), ensure_ascii=False)
    file.write("\n")
