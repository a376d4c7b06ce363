#!/usr/bin/env python3
"""Transcribes five clips with mobula-speech and with faster-whisper in turn: one thread, float32, the same weights.

    make -C Examples/SpeechToText compare [ROUNDS=5] [JSON=FILE]

Times are of features, encoder and decoder, without loading the model; for each clip the best of all rounds counts.
"""

import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"
from faster_whisper import WhisperModel  # noqa: E402  (reads the number of threads when it is imported)

CLIPS = pathlib.Path("/usr/share/pocketsphinx/test/data/librivox")


def free_port():
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def run_mobula(programs, model, beams, work, environment):
    report = work / "report.json"
    subprocess.run(
        [programs / "mobula-speech", "evaluate", "--model", model, "--actors", "1", "--beams", str(beams), "--json", report],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )
    return {clip["file"]: clip["seconds"] for clip in json.loads(report.read_text())["clips"]}


def run_faster_whisper(model, beams):
    times = {}
    for clip in sorted(CLIPS.glob("*.wav")):
        start = time.monotonic()
        segments, _ = model.transcribe(
            str(clip), language="en", beam_size=beams, temperature=0, without_timestamps=True, vad_filter=False,
            condition_on_previous_text=False, no_speech_threshold=None, log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        list(segments)
        times[clip.name] = time.monotonic() - start
    return times


def main():
    repository = pathlib.Path(__file__).resolve().parents[3]
    programs = repository / ".build/release"
    model = repository / "results/whisper-tiny.en"
    rounds = int(os.environ.get("ROUNDS", 5))
    work = pathlib.Path(tempfile.mkdtemp(prefix="mobula-speech-compare-"))
    environment = dict(os.environ, MOBULA_DIRECTORY=str(work / "host"))
    summary = {}
    try:
        subprocess.run(
            [programs / "mobula", "start", "--head", "--port", str(free_port()), "--capacity", "1GB", "--spill", "none",
             "--memory", "4GB", "--cpus", "2"],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )
        other = WhisperModel(str(model), device="cpu", compute_type="float32", cpu_threads=1)
        for beams in (1, 5):
            best = {"mobula-speech": {}, "faster-whisper": {}}
            for _ in range(rounds):
                for name, times in (
                    ("mobula-speech", run_mobula(programs, model, beams, work, environment)),
                    ("faster-whisper", run_faster_whisper(other, beams)),
                ):
                    for clip, seconds in times.items():
                        best[name][clip] = min(seconds, best[name].get(clip, seconds))
            print(f"{beams} beam{'s' if beams > 1 else ''}, best of {rounds}")
            summary[beams] = []
            for clip, seconds in sorted(best["mobula-speech"].items()):
                others = best["faster-whisper"][clip]
                print(f"  {clip}  mobula-speech {seconds:.3f} s  faster-whisper {others:.3f} s  ratio {seconds / others:.2f}")
                summary[beams].append({"file": clip, "mobulaSpeech": seconds, "fasterWhisper": others})
    finally:
        subprocess.run([programs / "mobula", "stop"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)
    if os.environ.get("JSON"):
        pathlib.Path(os.environ["JSON"]).write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
