import Foundation
import Mobula
import Testing

@testable import MobulaSpeech

/// `mobula-speech` as its users run it: real processes on a host of their own.
@Suite(
  .serialized, .enabled(if: SpeechProcess.canRun, "skipped: build the tool first, with make build"),
  .enabled(if: SpeechProcess.hasClips, "skipped: pocketsphinx-testdata is not installed"))
struct TranscribeProcessTests {
  /// A host, and a folder for files, both gone after `body`.
  private func withHost(_ body: (SpeechProcess) throws -> Void) throws {
    let process = try SpeechProcess()
    defer { process.stop() }
    try process.start()
    try body(process)
  }

  @Test func transcribesWhateverCanBeRead() throws {
    try withHost { process in
      let clip = SpeechProcess.clip
      let reference = try EvaluateCommand.references(in: SpeechProcess.librivox).first { clip.hasSuffix($0.file) }
      let whole = try process.speech("transcribe", clip, "--model", process.fixture("memorised-s2t"), "--memory", "0.2")
      #expect(whole.status == 0 && whole.errors.isEmpty, "\(whole)")
      #expect(WordErrorRate(whole.output, reference: try #require(reference).text).rate < 0.1, "\(whole)")

      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: clip)))
      let place = try #require(Data(bytes).range(of: Data("data".utf8))).upperBound
      func written(_ name: String, _ bytes: [UInt8]) throws -> String {
        try Data(bytes).write(to: URL(fileURLWithPath: process.folder + "/" + name))
        return process.folder + "/" + name
      }
      // As they come out of a pipe: nobody went back to write the length.
      func streamed(_ length: UInt8) -> [UInt8] {
        bytes[..<place] + Array(repeating: length, count: 4) + bytes[(place + 4)...]
      }
      let files = [
        try written("zero.wav", streamed(0)), try written("most.wav", streamed(0xFF)),
        try written("cut.wav", Array(bytes.dropLast(bytes.count / 3))),
        try written("click.wav", Array(bytes[..<place] + [200, 0, 0, 0] + bytes[(place + 4)..<(place + 204)])),
        try written("text.wav", Array("no audio".utf8)),
      ]
      let result = try process.speech(
        ["transcribe"] + files + ["--model", process.fixture("memorised-s2t"), "--json", "--memory", "0.2"])
      #expect(result.status == 1, "one of them is no audio: \(result)")
      let said = try #require(
        JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [[String: Any]], "\(result)")
      let texts = said.map { (($0["transcript"] as? [String: Any])?["text"] as? String) ?? "" }
      #expect(texts.count == 4 && texts[0] + "\n" == whole.output && texts[1] == texts[0], "\(result)")
      #expect(texts[3].isEmpty)
      let lines = result.errors.split(separator: "\n").map(String.init)
      #expect(lines.count == 3, "\(result)")
      #expect(lines.contains { $0.contains("cut.wav was cut") })
      #expect(lines.contains { $0.contains("click.wav") && $0.contains("has no text") && $0.contains("25 ms") })
      #expect(lines.contains { $0.contains("text.wav is not transcribed") && $0.contains("can't be read as audio") })
    }
  }

  @Test func loadsACheckpointOfAnotherTool() throws {
    try withHost { process in
      let folder = process.folder + "/model"
      try FileManager.default.copyItem(atPath: process.fixture("tiny-whisper"), toPath: folder)
      // The tied weight is stored once, under the name of the output layer.
      let weights = URL(fileURLWithPath: folder + "/model.safetensors")
      let file = [UInt8](try Data(contentsOf: weights))
      let length = file[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
      let header = String(decoding: file[8..<8 + length], as: UTF8.self)
        .replacing("\"model.decoder.embed_tokens.weight\"", with: "\"proj_out.weight\"")
      #expect(header.utf8.count < length)
      let size = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) }
      try Data(size + Array(header.utf8) + file[(8 + length)...]).write(to: weights)
      // And a token was added that the model has no embedding for.
      let added = URL(fileURLWithPath: folder + "/added_tokens.json")
      let tokens = try String(contentsOf: added, encoding: .utf8)
      let end = try #require(tokens.lastIndex(of: "}"))
      try Data((tokens[..<end] + ", \"<|mine|>\": 100000}").utf8).write(to: added)

      let clip = SpeechProcess.clip
      let before = try process.speech(
        "transcribe", clip, "--model", process.fixture("tiny-whisper"), "--memory", "0.2")
      let after = try process.speech("transcribe", clip, "--model", folder, "--memory", "0.2")
      #expect(before.status == 0 && before.errors.isEmpty, "\(before)")
      #expect(after.status == 0 && after.output == before.output, "\(after)")
      #expect(
        after.errors.hasPrefix("Warning: added_tokens.json adds tokens beyond")
          && after.errors.contains("\"<|mine|>\""),
        "\(after)")
      let missing = try process.speech("transcribe", folder + "/none.wav", "--model", folder)
      #expect(missing.status == 1 && missing.errors.contains("none.wav can't be read"), "\(missing)")
    }
  }
}

/// Runs the commands beside the test bundle, with a host in a folder of its own.
struct SpeechProcess {
  struct Finished {
    var status: Int32
    var output: String
    var errors: String
  }

  static let librivox = "/usr/share/pocketsphinx/test/data/librivox"
  static let clip = "\(librivox)/sense_and_sensibility_01_austen_64kb-0870.wav"
  static var hasClips: Bool { FileManager.default.fileExists(atPath: clip) }
  static var canRun: Bool {
    ["mobula", "mobula-speech"].allSatisfy { FileManager.default.isExecutableFile(atPath: "\(products)/\($0)") }
  }
  /// The build folder: the bundle is the executable itself, or run by a helper that is given its path.
  private static let products: String = {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    let folders = ([own] + CommandLine.arguments).map { URL(fileURLWithPath: $0).deletingLastPathComponent().path }
    return folders.first { FileManager.default.isExecutableFile(atPath: $0 + "/mobula-speech") } ?? ".build/release"
  }()

  let folder: String
  private var directory: String { folder + "/host" }

  init() throws {
    folder = "/tmp/speech-\(String(UInt32.random(in: 0 ... .max), radix: 36))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
  }

  func fixture(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
      + "/SpeechModelTests/Fixtures/\(name)"
  }

  func start() throws {
    for attempt in 1...5 {
      // Below those that the system gives to connections; another process may have it all the same.
      let started = try run(
        "mobula",
        [
          "start", "--head", "--port", "\(Int.random(in: 20_000..<32_000))", "--capacity", "256MB", "--spill", "none",
          "--cpus", "4", "--memory", "4GB",
        ])
      if started.status == 0 { return }
      try #require(attempt < 5, "\(started)")
    }
  }

  func stop() {
    _ = try? run("mobula", ["stop"])
    try? FileManager.default.removeItem(atPath: folder)
  }

  func speech(_ arguments: String...) throws -> Finished { try speech(arguments) }
  func speech(_ arguments: [String]) throws -> Finished { try run("mobula-speech", arguments) }

  private func run(_ tool: String, _ arguments: [String]) throws -> Finished {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "\(Self.products)/\(tool)")
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(["MOBULA_DIRECTORY": directory]) { $1 }
    // Files, since a pipe that nobody reads stops who writes.
    let (output, errors) = (folder + "/out", folder + "/err")
    for path in [output, errors] { _ = FileManager.default.createFile(atPath: path, contents: nil) }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle(forWritingAtPath: output)
    process.standardError = FileHandle(forWritingAtPath: errors)
    try process.run()
    let limit = Date().addingTimeInterval(120)
    while process.isRunning, Date() < limit { usleep(20_000) }
    if process.isRunning { process.terminate() }
    process.waitUntilExit()
    return Finished(
      status: process.terminationStatus, output: try String(contentsOfFile: output, encoding: .utf8),
      errors: try String(contentsOfFile: errors, encoding: .utf8))
  }
}
