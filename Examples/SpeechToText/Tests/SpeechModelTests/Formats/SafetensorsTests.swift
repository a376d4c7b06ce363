import Testing

@testable import SpeechModel

struct SafetensorsTests {
  private func read(_ file: [UInt8]) throws -> [String: StoredTensor] {
    try file.withUnsafeBytes { try SafetensorsHeader($0, name: "x").tensors($0, name: "x") }
  }

  /// A file of one tensor.
  private func one(_ type: String, _ shape: String, _ offsets: String, data: Int) -> [UInt8] {
    safetensors(
      "{\"a\":{\"dtype\":\"\(type)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}}",
      data: Array(repeating: 0, count: data))
  }

  @Test func readsWhatTheFormatAllows() throws {
    #expect(try read(one("F32", "[2,3]", "[0,24]", data: 24))["a"]?.shape == [2, 3])
    #expect(try read(one("BF16", "[]", "[0,2]", data: 2))["a"]?.count == 1)
    #expect(try read(one("I64", "[0,7]", "[0,0]", data: 0))["a"]?.element == .other("I64"))
    #expect(try read(safetensors("{}")).isEmpty)
    #expect(try read(safetensors("{\"__metadata__\":{\"format\":\"pt\"}}   ")).isEmpty)
  }

  @Test(arguments: [
    ("[2,3]", "[0,23]", 24), ("[2,3]", "[0,24]", 23), ("[2,3]", "[24,0]", 24), ("[2,3]", "[-24,0]", 24),
    ("[2,-3]", "[0,24]", 24), ("[9223372036854775807,3]", "[0,24]", 24), ("[4611686018427387905,4]", "[0,16]", 16),
    ("[99999999999999999999]", "[0,24]", 24), ("[2.5]", "[0,10]", 10), ("[6]", "[0,9223372036854775807]", 24),
    ("[6]", "[9223372036854775800,9223372036854775807]", 24), ("[6]", "[0]", 24), ("[6]", "[0,24,24]", 24),
    ("6", "[0,24]", 24), ("[6]", "[0.0,24]", 24), ("[6]", "null", 24),
  ])
  func refusesBadExtents(_ shape: String, _ offsets: String, _ data: Int) throws {
    #expect(speechError { _ = try read(one("F32", shape, offsets, data: data)) }?.code == .badModel)
  }

  @Test func refusesOverlaps() throws {
    func two(_ first: String, _ second: String) -> [UInt8] {
      let entries = [("a", first), ("b", second)].map {
        "\"\($0)\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":\($1)}"
      }
      return safetensors("{\(entries.joined(separator: ","))}", data: Array(repeating: 0, count: 16))
    }
    #expect(try read(two("[0,8]", "[8,16]")).count == 2)
    for (first, second) in [("[0,8]", "[0,8]"), ("[0,8]", "[4,12]"), ("[8,16]", "[1,9]")] {
      let error = speechError { _ = try read(two(first, second)) }
      #expect(error?.message.contains("overlap") == true)
    }
    let twice = safetensors(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        + "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", data: [0, 0])
    #expect(speechError { _ = try read(twice) }?.message.contains("two tensors") == true)
  }

  @Test func refusesBadHeaders() throws {
    let files: [[UInt8]] = [
      [], [1, 2, 3], bytes(UInt64(0)), bytes(UInt64.max), bytes(UInt64(Int64.max)), safetensors("{}", length: 3),
      safetensors("[]"), safetensors("{"), safetensors("{\"a\":1}"), safetensors("{\"a\":{}}"), safetensors("\u{0}{}"),
      safetensors(String(repeating: "[", count: 100_000)), Array("<!DOCTYPE html><html></html>".utf8),
      safetensors("{\"a\":{\"dtype\":5,\"shape\":[],\"data_offsets\":[0,0]}}"),
    ]
    for file in files { #expect(speechError { _ = try read(file) }?.code == .badModel) }
    #expect(speechError { _ = try read(one("F4", "[2]", "[0,1]", data: 1)) }?.code == .unsupported)
  }
}

struct NormalisedModelTests {
  private func open(_ file: [UInt8], shift: Int = 0) throws -> NormalisedModel {
    let owner = OwnedBytes(Array(repeating: 0, count: shift) + file)
    return try NormalisedModel(bytes: UnsafeRawBufferPointer(rebasing: owner.bytes[shift...]), owner: owner)
  }

  /// A normalised model whose header was changed to one of the same length.
  private func changed(_ text: String, to other: String) throws -> [UInt8] {
    let file = try blob(ModelNormaliser(files: FixtureModel.tinyWhisper.files())).array
    let length = Int(file[0]) | Int(file[1]) << 8 | Int(file[2]) << 16
    let header = String(decoding: file[8..<8 + length], as: UTF8.self)
    #expect(header.contains(text) && text.utf8.count == other.utf8.count)
    return Array(file[..<8]) + Array(header.replacing(text, with: other).utf8) + Array(file[(8 + length)...])
  }

  @Test func refusesOtherShapesAndNames() throws {
    let model = try FixtureModel.tinyWhisper.model()
    _ = try model.tensor("encoder.layer_norm.weight", [16])
    #expect(speechError { _ = try model.tensor("encoder.layer_norm.weight", [15]) }?.code == .badModel)
    #expect(speechError { _ = try model.tensor("encoder.layer_norm", [16]) }?.code == .badModel)
  }

  @Test func checksTheBlob() throws {
    let file = try changed("mobula-speech-1", to: "mobula-speech-1")
    _ = try open(file)
    _ = try open(file, shift: 64)
    #expect(speechError { _ = try open(file, shift: 4) }?.message.contains("multiple of 64") == true)
    for count in [0, 7, 8, 100, file.count / 2, file.count - 4] {
      #expect(speechError { _ = try open(Array(file[..<count])) }?.code == .badModel)
    }
    for (text, other) in [
      ("mobula-speech-1", "mobula-speech-2"), ("\\\"dModel\\\":16", "\\\"dModel\\\":18"),
      ("\"encoder.layer_norm.bias\"", "\"encoder.layer_norm.bios\""), ("\"whisper\"", "\"whispel\""),
      ("\\\"encoderLayers\\\":2", "\\\"encoderLayers\\\":3"), ("\\\"melBins\\\":80", "\\\"melBins\\\":0 "),
      ("\\\"eosToken\\\":260", "\\\"eosToken\\\":279"), ("\"F32\"", "\"I32\""),
      ("\"shape\":[16,3,80]", "\"shape\":[80,3,16]"),
    ] {
      #expect(speechError { _ = try open(try changed(text, to: other)) }?.code == .badModel, "\(text)")
    }
  }
}
