import Testing

@testable import SpeechModel

struct CTranslate2Tests {
  private func read(_ builder: CTranslate2Builder) throws -> [String: [Float]] { try read(builder.file) }

  private func read(_ contents: [UInt8]) throws -> [String: [Float]] {
    let file = ModelFile(name: "model.bin", contents: contents)
    return try withExtendedLifetime(file) {
      try CTranslate2Model(file).variables.mapValues { tensor in (0..<tensor.count).map { tensor.number($0) } }
    }
  }

  private func with(_ change: (inout CTranslate2Builder) -> Void) -> CTranslate2Builder {
    var builder = CTranslate2Builder(variables: [
      CTranslate2Builder.Variable(name: "half", shape: [2, 2], type: 4, data: [0, 0x3C, 0, 0xC0, 1, 0, 0xFF, 0x7B]),
      CTranslate2Builder.Variable(name: "byte", shape: [2, 2], type: 1, data: [1, 2, 0xFF, 0x81]),
      CTranslate2Builder.Variable(
        name: "byte_scale", shape: [2], type: 0, data: bytes(Float(2).bitPattern) + bytes(Float(0.5).bitPattern)),
      CTranslate2Builder.Variable(name: "brain", shape: [2], type: 5, data: [0x80, 0x3F, 0x20, 0xC1]),
    ])
    change(&builder)
    return builder
  }

  @Test func convertsEachType() throws {
    let variables = try read(with { _ in })
    #expect(variables["half"] == [1, -2, 0x1p-24, 65504])
    #expect(variables["byte"] == [0.5, 1, -2, -254])
    #expect(variables["brain"] == [1, -10])
  }

  /// Against Swift's own conversion, for each of the 65536 numbers.
  @Test func convertsEveryHalf() throws {
    let data = (0...UInt16.max).flatMap { bytes($0) }
    let numbers = try #require(
      try read(with { $0.variables = [.init(name: "h", shape: [65536], type: 4, data: data)] })["h"])
    for pattern in 0...UInt16.max {
      let (expected, actual) = (Float(Float16(bitPattern: pattern)), numbers[Int(pattern)])
      if expected.isFinite {
        #expect(actual.bitPattern == expected.bitPattern)
      } else {
        #expect(actual.isNaN)
      }
    }
  }

  @Test func refusesLies() throws {
    let lies: [(inout CTranslate2Builder) -> Void] = [
      { $0.variables[0].shape = [2, 3] }, { $0.variables[0].shape = [.max, .max, .max] },
      { $0.variables[0].shape = [0] },
      { $0.variables[0].length = 9 }, { $0.variables[0].length = .max }, { $0.variables[1].name = "half" },
      { $0.variables[2].shape = [1, 2, 1] }, { $0.variables[2].name = "other" }, { $0.count = 3 }, { $0.count = 5 },
      { $0.count = .max }, { $0.variables[2].data = [0, 0, 0, 0] },
      { $0.variables[0].shape = Array(repeating: 1, count: 255) },
    ]
    for (index, lie) in lies.enumerated() {
      let error = speechError { _ = try read(with(lie)) }
      // A shape of another form with the same count is no lie.
      #expect(error?.code == (index == 6 ? nil : .badModel), "\(index)")
    }
    #expect(speechError { _ = try read(with { $0.version = 3 }) }?.code == .unsupported)
    #expect(speechError { _ = try read(with { $0.version = 7 }) }?.code == .unsupported)
    #expect(speechError { _ = try read(with { $0.variables[0].type = 6 }) }?.code == .unsupported)
    let other = speechError { _ = try read(with { $0.specification = "TransformerSpec" }) }
    #expect(other?.code == .unsupported && other?.message.contains("TransformerSpec") == true)
    let file = with { _ in }.file
    for count in 0..<file.count { #expect(speechError { _ = try read(Array(file[..<count])) } != nil, "\(count)") }
    #expect(speechError { _ = try read(file + [0]) }?.message.contains("behind its end") == true)
  }

  @Test func readsTheTinyWhispersConfiguration() throws {
    let fromCTranslate2 = try FixtureModel.tinyWhisperInt8.model()
    let fromTransformers = try FixtureModel.tinyWhisper.model()
    #expect(fromCTranslate2.configuration == fromTransformers.configuration)
    #expect(fromCTranslate2.vocabulary == (try Golden.read().vocabulary))
  }

  @Test func needsItsFiles() throws {
    let fixture = FixtureModel.tinyWhisperFloat16
    for (name, word) in [("config.json", "config.json is missing"), ("vocabulary.json", "vocabulary is missing")] {
      let error = speechError { _ = try normalised(try fixture.files(replacing: [:], without: [name])) }
      #expect(error?.code == .badModel && error?.message.contains(word) == true)
    }
    // vocabulary.txt does as well, and tokenizer.json alone.
    let lines = Array(try Golden.read().vocabulary.joined(separator: "\n").utf8)
    let text = try fixture.files(replacing: ["vocabulary.txt": lines], without: ["vocabulary.json"])
    #expect(try normalised(text).vocabulary == (try Golden.read().vocabulary))
    let tokenizer = try FixtureModel.tinyWhisperInt8.files(replacing: [:], without: ["vocabulary.json"])
    #expect(try normalised(tokenizer).vocabulary == (try Golden.read().vocabulary))
  }

  @Test func refusesAHeadOfItsOwn() throws {
    let file = try FixtureModel.tinyWhisperFloat16.bytes("model.bin")
    // The alias of the projection is made another variable's.
    let alias =
      CTranslate2Builder.text("decoder/projection/weight") + CTranslate2Builder.text("decoder/embeddings/weight")
    #expect(file.suffix(alias.count) == alias[...])
    let other =
      CTranslate2Builder.text("decoder/projection/weight")
      + CTranslate2Builder.text("encoder/position_encodings/encodings")
    let error = speechError {
      _ = try normalised(
        try FixtureModel.tinyWhisperFloat16.files(replacing: ["model.bin": file.dropLast(alias.count) + other]))
    }
    #expect(error?.code == .unsupported && error?.message.contains("output layer of its own") == true)
  }
}
