"""Makes a tiny random Whisper and its goldens with transformers 4.40.2: python3 whisper.py FIXTURES

FIXTURES is Tests/SpeechModelTests/Fixtures; what is written there is random-whisper, a multilingual model with windows
of 3 s, and goldens/whisper.{json,safetensors}.
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

import signals

torch.set_num_threads(1)
torch.manual_seed(5)
fixtures = sys.argv[1]
directory = fixtures + "/random-whisper"
os.makedirs(directory, exist_ok=True)
os.makedirs(fixtures + "/goldens", exist_ok=True)

languages = ["en", "zh", "de", "es", "ru", "yue"]
special = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev",
           "nospeech", "notimestamps", *(f"{step * 0.02:.2f}" for step in range(151))]
tokens = {character: number for number, character in enumerate(bytes_to_unicode().values())}
added = {f"<|{name}|>": 256 + number for number, name in enumerate(special)}


def number(name):
    return added[f"<|{name}|>"]


config = WhisperConfig(
    vocab_size=256 + len(special), num_mel_bins=80, d_model=32, encoder_layers=2, decoder_layers=2,
    encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
    max_source_positions=150, max_target_positions=64, init_std=0.25, dropout=0.0, pad_token_id=number("endoftext"),
    bos_token_id=number("endoftext"), eos_token_id=number("endoftext"),
    decoder_start_token_id=number("startoftranscript"), suppress_tokens=None, begin_suppress_tokens=None)
model = WhisperForConditionalGeneration(config).eval()
with torch.no_grad():
    # A decoder that listens: louder cross-attention and positions, quieter embeddings; an end that is sometimes likely.
    for layer in model.model.decoder.layers:
        layer.encoder_attn.v_proj.weight *= 3
        layer.encoder_attn.q_proj.weight *= 3
    model.model.decoder.embed_positions.weight.normal_(0, 0.3)
    model.model.encoder.conv1.weight *= 2
    model.model.decoder.embed_tokens.weight[number("endoftext")] = 0.8 * torch.randn(32)
model.generation_config = GenerationConfig(
    bos_token_id=number("endoftext"), eos_token_id=number("endoftext"), pad_token_id=number("endoftext"),
    decoder_start_token_id=number("startoftranscript"), is_multilingual=True,
    lang_to_id={f"<|{language}|>": number(language) for language in languages},
    task_to_id={"transcribe": number("transcribe"), "translate": number("translate")},
    no_timestamps_token_id=number("notimestamps"), prev_sot_token_id=number("startofprev"), max_length=48,
    max_initial_timestamp_index=50, begin_suppress_tokens=[220, number("endoftext")],
    suppress_tokens=[1, 2, 7, 50, *(number(name) for name in special[1:13])])
model.generation_config.suppress_tokens.sort()
model.save_pretrained(directory)
json.dump(tokens, open(directory + "/vocab.json", "w"), ensure_ascii=False)
json.dump(added, open(directory + "/added_tokens.json", "w"))

extractor = WhisperFeatureExtractor(chunk_length=3)
SEARCHES = [
    {"num_beams": 1},
    {"num_beams": 1, "language": "de", "task": "translate"},
    {"num_beams": 1, "return_timestamps": True},
    {"num_beams": 2, "early_stopping": False, "language": "yue"},
    {"num_beams": 5, "early_stopping": False},
    {"num_beams": 5, "early_stopping": True, "max_length": 20},
    {"num_beams": 3, "early_stopping": False, "length_penalty": 0.4, "return_timestamps": True},
]


def features(samples):
    return extractor(samples.astype(np.float32) / 32768, sampling_rate=16000, return_tensors="pt").input_features


def search(inputs, arguments):
    full = {"task": "transcribe", **arguments}
    with torch.no_grad():
        language = full.get("language") or {
            number(name): name for name in languages
        }[model.detect_language(inputs, generation_config=model.generation_config)[0].item()]
        tokens = model.generate(inputs, **full)[0].tolist()
    prompt = [number("startoftranscript"), number(language), number(full["task"])]
    if not full.get("return_timestamps"):
        prompt.append(number("notimestamps"))
    assert tokens[: len(prompt)] == prompt, tokens
    tokens = tokens[len(prompt) :]
    if number("endoftext") in tokens:
        tokens = tokens[: tokens.index(number("endoftext"))]
    return {**arguments, "prompt": prompt, "tokens": tokens}


everything = {**signals.synthetic(), **signals.recorded()}
texts = {name: [search(features(samples), s) for s in SEARCHES] for name, samples in everything.items()}
tensors = {}
for name in ("tones", "burst"):
    tensors["features." + name] = np.ascontiguousarray(features(everything[name])[0].numpy().T)
with torch.no_grad():
    inputs = features(everything["tones"])
    tensors["encoder"] = model.model.encoder(inputs).last_hidden_state[0].numpy()
    ids = torch.tensor([texts["tones"][0]["prompt"] + [9, 8, 200]])
    tensors["tokens"] = ids[0].numpy().astype(np.float32)
    tensors["logits"] = model(inputs, decoder_input_ids=ids).logits[0].numpy()
save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, fixtures + "/goldens/whisper.safetensors")
json.dump({"random-whisper": texts}, open(fixtures + "/goldens/whisper.json", "w"), separators=(",", ":"))
for name, results in texts.items():
    print(name, [r["prompt"][1] for r in results][0], [len(r["tokens"]) for r in results], results[4]["tokens"][:12], results[2]["tokens"][:8])
