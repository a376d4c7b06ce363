"""Makes goldens of Speech2Text with transformers 4.40.2: python3 speech2text.py FIXTURES

FIXTURES is Tests/SpeechModelTests/Fixtures; what is written there is goldens/speech2text.{json,safetensors}.
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import Speech2TextFeatureExtractor, Speech2TextForConditionalGeneration

import signals

torch.set_num_threads(1)
fixtures = sys.argv[1]
os.makedirs(fixtures + "/goldens", exist_ok=True)
extractor = Speech2TextFeatureExtractor()

SEARCHES = [
    {"num_beams": 1, "max_length": 40},
    {"num_beams": 2, "max_length": 30, "early_stopping": False},
    {"num_beams": 3, "max_length": 12, "early_stopping": False, "length_penalty": 0.6},
    {"num_beams": 5, "max_length": 60, "early_stopping": True},
    {"num_beams": 5, "max_length": 60, "early_stopping": False, "length_penalty": 2.0},
    {"num_beams": 5, "max_length": 60, "early_stopping": True, "length_penalty": -1.0},
]


def features(samples):
    return extractor(samples.astype(np.float32) / 32768, sampling_rate=16000, return_tensors="pt").input_features


def searches(model, samples):
    result = []
    for search in SEARCHES:
        with torch.no_grad():
            tokens = model.generate(features(samples), **search)[0].tolist()
        tokens = tokens[1:]
        if 2 in tokens:
            tokens = tokens[: tokens.index(2)]
        result.append({**search, "tokens": tokens})
    return result


tensors, texts = {}, {}
golden = np.load(fixtures + "/random-s2t-golden.npz")
for name in ("feat", "enc", "logits"):
    tensors["random." + name] = np.ascontiguousarray(golden[name][0].astype(np.float32))
for name in ("tones", "burst"):
    tensors["features." + name] = np.ascontiguousarray(features(signals.synthetic()[name])[0].numpy())
for directory in ("random-s2t", "memorised-s2t"):
    model = Speech2TextForConditionalGeneration.from_pretrained(f"{fixtures}/{directory}").eval()
    texts[directory] = {
        name: searches(model, samples) for name, samples in {**signals.synthetic(), **signals.recorded()}.items()
    }
save_file(tensors, fixtures + "/goldens/speech2text.safetensors")
with open(fixtures + "/goldens/speech2text.json", "w") as file:
    json.dump(texts, file, separators=(",", ":"))
for directory, results in texts.items():
    for name, result in results.items():
        print(directory, name, [len(search["tokens"]) for search in result], result[3]["tokens"][:12])
