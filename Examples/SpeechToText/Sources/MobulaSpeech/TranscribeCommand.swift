import ArgumentParser
import Foundation
import Mobula
import SpeechModel

struct TranscribeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "transcribe", abstract: "Transcribe audio files.",
    discussion: """
      Audio of any length up to 6 hours, in whatever libsndfile reads (WAV, FLAC, Ogg, AIFF), at 8 to 192 kHz.
      Recordings lie in memory: an hour takes 230 MB of the store. A file that can't be transcribed is reported, and
      the others are printed; the exit status is 1 then.

      Examples:
        mobula-speech transcribe talk.flac --model s3://models/whisper-tiny.en/
        mobula-speech transcribe *.wav --model s2t-medium-librispeech-asr --beams 5 --json
        mobula-speech transcribe film.wav --model s3://models/whisper-base/ --language fr --task translate --srt
      """)

  @OptionGroup var model: ModelOptions

  @Argument(help: "The audio files.")
  var files: [String]

  @Option(help: "How many texts are followed at once, from 1 to 32. Default: as the model says.")
  var beams: Int?

  @Option(help: "What is spoken, as \"en\". Default: a multilingual model finds out.")
  var language: String?

  @Option(help: "transcribe, or translate into English (multilingual Whisper).")
  var task = "transcribe"

  @Option(help: "How many actors work. Default: one for each host, but no more than files.")
  var actors: Int?

  @Flag(help: "Print JSON.")
  var json = false

  @Flag(help: "Print SubRip subtitles, one file after the other.")
  var srt = false

  func validate() throws {
    if json && srt { throw ValidationError("Give --json or --srt, not both.") }
    guard !files.isEmpty else { throw ValidationError("Give at least one audio file.") }
    if let beams, !(1...32 ~= beams) { throw ValidationError("--beams is from 1 to 32.") }
    if let actors, !(1...1000 ~= actors) { throw ValidationError("--actors is from 1 to 1000.") }
    guard ["transcribe", "translate"].contains(task) else {
      throw ValidationError("--task is transcribe or translate, not \(task).")
    }
    _ = try model.options(.pack)
  }

  @concurrent func run() async throws {
    // Before anything is started for them.
    for file in files where !FileManager.default.isReadableFile(atPath: file) {
      throw SpeechError(.badAudio, "\(file) can't be read: give the path of an audio file.")
    }
    let cluster = try await model.connect()
    do {
      let prepared = try await model.prepare(on: cluster)
      let hosts = try await cluster.status().hosts.count { $0.connected }
      let actors = try await spawn(actors ?? min(hosts, files.count), of: prepared, model, on: cluster)
      let requested = RequestedOptions(
        beams: beams, language: language, translates: task == "translate", timestamps: srt ? true : nil)
      let results = try await transcribe(
        files, on: actors, requested, cluster: cluster, progress: ProgressLine(files: files.count))
      try show(results)
    } catch {
      await cluster.close()
      throw error
    }
    await cluster.close()
  }

  private struct Output: Encodable {
    var file: String
    var transcript: Transcript
  }

  /// Prints what there is, and says what failed.
  ///
  /// - Throws: `ExitCode.failure`, if one failed.
  private func show(_ results: [Result<Transcript, any Error>]) throws {
    var done: [(file: String, transcript: Transcript)] = []
    var failures: [(file: String, error: any Error)] = []
    for (file, result) in zip(files, results) {
      switch result {
      case .success(let transcript): done.append((file, transcript))
      case .failure(let error): failures.append((file, error))
      }
    }
    try show(done)
    for (file, transcript) in done {
      for text in transcript.warnings { warn(text.hasPrefix(file) ? text : "\(file): \(text)") }
    }
    for (file, error) in failures {
      FileHandle.standardError.write(Data("\(file) is not transcribed: \(error)\n".utf8))
    }
    if !failures.isEmpty { throw ExitCode.failure }
  }

  private func show(_ transcripts: [(file: String, transcript: Transcript)]) throws {
    if json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      let all = transcripts.map { Output(file: $0.file, transcript: $0.transcript) }
      print(String(decoding: try encoder.encode(all), as: UTF8.self))
      return
    }
    var number = 0
    for (file, transcript) in transcripts {
      if srt {
        for segment in transcript.segments {
          number += 1
          print("\(number)\n\(subRipTime(segment.start)) --> \(subRipTime(segment.end))\n\(segment.text)\n")
        }
      } else {
        print(files.count > 1 ? "\(file): \(transcript.text)" : transcript.text)
      }
    }
  }
}

/// Seconds as SubRip writes them: 00:01:02,345.
func subRipTime(_ seconds: Double) -> String {
  let milliseconds = Int((seconds * 1000).rounded())
  func padded(_ number: Int, _ width: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, width - text.count)) + text
  }
  let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60)
  return
    "\(padded(hours, 2)):\(padded(minutes, 2)):\(padded(milliseconds / 1000 % 60, 2)),\(padded(milliseconds % 1000, 3))"
}
