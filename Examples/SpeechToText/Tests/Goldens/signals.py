"""Audio that the goldens are made from: integer arithmetic only, so that the tests in Swift make the same."""
import os
import wave

import numpy as np

LIBRIVOX = "/usr/share/pocketsphinx/test/data/librivox/"
CLIPS = [f"sense_and_sensibility_01_austen_64kb-{number}" for number in ("0870", "0880", "0890", "0920", "0930")]


def noise(seed, count, shift=2):
    """16-bit samples from a linear congruential generator (Numerical Recipes' constants), divided by 2**shift."""
    state, samples = seed, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        samples.append(((state >> 16) - 32768) >> shift)
    return np.array(samples, dtype=np.int16)


def tones(seed, count):
    """Triangle waves of a pitch and loudness that change every 1600 samples, with some noise."""
    state, samples, phase = seed, [], 0
    hiss = noise(seed + 1, count, 7)
    for index in range(count):
        if index % 1600 == 0:
            state = (state * 1664525 + 1013904223) % 2**32
            step, loudness = 200 + (state >> 16) % 6000, (state >> 8) % 8
        phase = (phase + step) % 65536
        samples.append(((abs(phase - 32768) - 16384) >> loudness) + int(hiss[index]))
    return np.array(samples, dtype=np.int16)


def clip(name):
    with wave.open(os.path.join(LIBRIVOX, name + ".wav")) as file:
        return np.frombuffer(file.readframes(-1), dtype=np.int16)


def mixture(a, b):
    """Half of each, as long as the shorter one."""
    count = min(len(a), len(b))
    return ((a[:count].astype(np.int32) + b[:count].astype(np.int32)) >> 1).astype(np.int16)


def synthetic():
    """Named signals that need no file."""
    return {
        "noise": noise(1, 24000),
        "quiet": noise(2, 32000, 9),
        "tones": tones(3, 40000),
        "tones-2": tones(4, 30011),
        "mixture": mixture(tones(5, 36000), noise(6, 36000, 4)),
        "burst": np.concatenate([np.zeros(8000, np.int16), tones(7, 9000), np.zeros(8000, np.int16)]),
    }


def recorded():
    """Named signals cut and mixed from Debian's pocketsphinx-testdata."""
    clips = [clip(name) for name in CLIPS]
    return {
        "cut-1": clips[0][:24000],
        "cut-2": clips[1][16000:],
        "cut-3": clips[2][8000:56000],
        "mixture-1": mixture(clips[0], clips[3]),
        "mixture-2": mixture(clips[2], clips[4]),
        "noisy": mixture(clips[3], noise(8, len(clips[3]), 3)),
        "joined": np.concatenate([clips[4][:30000], clips[1][:40000]]),
    }
