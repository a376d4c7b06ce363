import ArgumentParser
import Foundation
import Mobula

struct EvaluateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate", abstract: "Transcribe clips whose text is known, and count the wrong words.",
    discussion: """
      The folder has the clips, and a file "transcription" with a line for each: "<s> the text </s> (name)", as CMU
      Sphinx writes them; Debian's pocketsphinx-testdata has five.
      """)

  @OptionGroup var model: ModelOptions

  @Option(help: "The folder with the clips.")
  var clips = "/usr/share/pocketsphinx/test/data/librivox"

  @Option(help: "How many texts are followed at once, from 1 to 32. Default: as the model says.")
  var beams: Int?

  @Option(help: "How many actors work, on the hosts in turn. Default: one for each host.")
  var actors: Int?

  @Option(help: "Write the figures to this file, as JSON.")
  var json: String?

  func validate() throws {
    if let beams, !(1...32 ~= beams) { throw ValidationError("--beams is from 1 to 32.") }
    if let actors, !(1...1000 ~= actors) { throw ValidationError("--actors is from 1 to 1000.") }
    _ = try model.options(.pack)
  }

  struct Report: Encodable {
    struct Clip: Encodable {
      var file: String
      var text: String
      var reference: String
      var wer: Double
      /// For features, encoder and decoder.
      var seconds: Double
      var host: String
    }

    var wer: Double
    var clips: [Clip]
  }

  @concurrent func run() async throws {
    let references = try Self.references(in: clips)
    let cluster = try await model.connect()
    do {
      let prepared = try await model.prepare(on: cluster)
      print(
        "The model: \(ByteCount(prepared.bytes)) of float32; fetched in \(short(prepared.fetch)) s, normalised in \(short(prepared.normalise)) s"
      )
      let hosts = try await cluster.status().hosts.count { $0.connected }
      let actors = try await spawn(actors ?? hosts, of: prepared, model, on: cluster)
      let files = references.map { "\(clips)/\($0.file)" }
      let results = try await transcribe(
        files, on: actors, RequestedOptions(beams: beams), cluster: cluster, progress: ProgressLine(files: files.count))
      let transcripts = try results.map { try $0.get() }
      try report(references, transcripts)
    } catch {
      await cluster.close()
      throw error
    }
    await cluster.close()
  }

  private func report(_ references: [(file: String, text: String)], _ transcripts: [Transcript]) throws {
    var total = WordErrorRate()
    var report = Report(wer: 0, clips: [])
    for ((file, reference), transcript) in zip(references, transcripts) {
      total.add(transcript.text, reference: reference)
      let wer = WordErrorRate(transcript.text, reference: reference).rate
      let times = transcript.timings
      report.clips.append(
        .init(
          file: file, text: transcript.text, reference: reference, wer: wer,
          seconds: times.features + times.encode + times.decode, host: transcript.host))
      print(
        """

        \(file), \(short(transcript.audio)) s, on \(transcript.host)
          text       \(transcript.text)
          reference  \(reference)
          wrong      \(short(100 * wer)) % of the words
          seconds    wait \(short(times.wait)), map \(short(times.map)), features \(short(times.features)), encode \(short(times.encode)), decode \(short(times.decode))
        """)
    }
    report.wer = total.rate
    print("\nWord error rate: \(short(100 * total.rate)) % (\(total.errors) of \(total.words) words)")
    guard let json else { return }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try encoder.encode(report).write(to: URL(fileURLWithPath: json), options: .atomic)
  }

  /// The clips of a folder and what is said in them.
  static func references(in folder: String) throws -> [(file: String, text: String)] {
    guard let lines = try? String(contentsOfFile: folder + "/transcription", encoding: .utf8) else {
      throw ValidationError(
        "\(folder)/transcription can't be read: install pocketsphinx-testdata, or name another folder with --clips.")
    }
    let clips = lines.split(whereSeparator: \.isNewline).compactMap { line -> (String, String)? in
      guard let open = line.lastIndex(of: "("), let close = line.lastIndex(of: ")"), open < close else { return nil }
      let text = line[..<open].split(separator: " ").filter { $0 != "<s>" && $0 != "</s>" }
      return ("\(line[line.index(after: open)..<close]).wav", text.joined(separator: " "))
    }
    guard !clips.isEmpty else {
      throw ValidationError("\(folder)/transcription has no line as \"<s> text </s> (name)\".")
    }
    return clips
  }
}

func short(_ number: Double) -> String { String(format: "%.2f", number) }
