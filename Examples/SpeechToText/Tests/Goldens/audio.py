"""Makes the audio fixtures with libsndfile, and the cuts of timed tokens with transformers 4.40.2:
python3 audio.py FIXTURES writes goldens/tones.flac (24 kHz, stereo, 16 bits) and goldens/timed-tokens.json.
"""
import ctypes
import json
import sys

import numpy as np
import torch
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

import signals

fixtures = sys.argv[1]


class Information(ctypes.Structure):
    _fields_ = [("frames", ctypes.c_int64), ("samplerate", ctypes.c_int), ("channels", ctypes.c_int),
                ("format", ctypes.c_int), ("sections", ctypes.c_int), ("seekable", ctypes.c_int)]


library = ctypes.CDLL("libsndfile.so.1")
library.sf_open.restype = ctypes.c_void_p
library.sf_writef_short.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
library.sf_close.argtypes = [ctypes.c_void_p]
left, right = signals.tones(11, 12000), signals.tones(12, 12000)
frames = np.ascontiguousarray(np.stack([left, right], 1))
information = Information(0, 24000, 2, 0x170000 | 0x0002, 0, 0)
file = library.sf_open((fixtures + "/goldens/tones.flac").encode(), 0x20, ctypes.byref(information))
assert library.sf_writef_short(file, frames.ctypes.data, 12000) == 12000
library.sf_close(file)

# Tokens from 100 on are timestamps; windows are of 30 s.
CASES = [
    [100, 1, 2, 150], [100, 1, 2, 150, 150, 3, 200], [100, 1, 2, 150, 150, 3, 200, 200], [100, 1, 2, 150, 160, 3],
    [100, 1, 2], [1, 2], [100], [100, 1, 150, 150, 2, 250, 260, 4, 4, 300], [100, 1, 150, 150, 2, 250, 260, 4, 4, 300, 300],
    [120, 1, 101], [100, 100], [100, 1, 1600],
]
cuts = []
for tokens in CASES:
    segments, offset = WhisperGenerationMixin._retrieve_segment(
        seek_sequence=torch.tensor(tokens), seek_outputs=[None], time_offset=torch.tensor([0.0], dtype=torch.float64),
        timestamp_begin=100, seek_num_frames=torch.tensor([3000]), time_precision=0.02, input_stride=2, prev_idx=0,
        idx=0, return_token_timestamps=False)
    cuts.append({"tokens": tokens, "frames": int(offset), "segments": [
        {"start": float(s["start"]), "end": float(s["end"]), "tokens": s["tokens"].tolist()} for s in segments]})
json.dump(cuts, open(fixtures + "/goldens/timed-tokens.json", "w"), separators=(",", ":"))
for cut in cuts:
    print(cut)
