import ArgumentParser
import Mobula

/// The example's one executable: the driver that people call, and the worker that actors live in.
@main
struct MobulaSpeech: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mobula-speech",
    abstract: "Transcribes speech with a model that travels through a Mobula cluster.",
    discussion: """
      The model goes from S3 (or a folder) into shared memory once; actors on all hosts use its weights in place.
      Needs a running cluster on this machine: `mobula start --head`.

      Examples:
        mobula-speech transcribe talk.flac --model s3://models/whisper-tiny.en/
        mobula-speech transcribe *.wav --model s2t-medium-librispeech-asr --beams 5 --json
        mobula-speech transcribe film.wav --model s3://models/whisper-base/ --language fr --task translate --srt
        mobula-speech evaluate --model s3://models/whisper-tiny.en/ --clips librivox
        mobula-speech memory --model s3://models/whisper-tiny.en/ --actors 10
      """,
    subcommands: [TranscribeCommand.self, EvaluateCommand.self, MemoryCommand.self, BenchmarkCommand.self])

  @concurrent static func main() async {
    if Worker.isRequested { await Worker.main() }
    await main(nil)
  }
}
