/// Makes text of tokens.
struct Detokeniser: Sendable {
  private let vocabulary: [String]
  /// Whether a token is no text.
  private let isSpecial: [Bool]
  /// Whisper's vocabulary is of bytes; Speech2Text's of text with ▁ for a space.
  private let isOfBytes: Bool

  init(_ model: NormalisedModel) {
    let configuration = model.configuration
    let vocabulary = model.vocabulary
    self.vocabulary = vocabulary
    isOfBytes = configuration.family == .whisper
    if configuration.family == .whisper {
      // All special tokens follow the text's.
      isSpecial = vocabulary.indices.map { $0 >= configuration.eosToken }
    } else {
      let special = [configuration.padToken, configuration.bosToken, configuration.eosToken]
      isSpecial = vocabulary.indices.map { special.contains($0) || vocabulary[$0] == "<unk>" }
    }
  }

  /// The text, with the space that a word begins with.
  func callAsFunction(_ tokens: some Sequence<Int>) -> String {
    let pieces = tokens.lazy.filter { vocabulary.indices.contains($0) && !isSpecial[$0] }.map { vocabulary[$0] }
    guard isOfBytes else { return pieces.joined().replacing("\u{2581}", with: " ") }
    var bytes: [UInt8] = []
    for piece in pieces {
      for scalar in piece.unicodeScalars {
        if let byte = Self.bytes[scalar] { bytes.append(byte) } else { bytes += String(scalar).utf8 }
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// GPT-2's alphabet: bytes that print as Latin-1 stand for themselves, the others for U+0100 and following.
  private static let bytes: [Unicode.Scalar: UInt8] = {
    var bytes: [Unicode.Scalar: UInt8] = [:]
    var next: UInt32 = 256
    for byte in UInt8.min...UInt8.max {
      if 33...126 ~= byte || 161...172 ~= byte || byte >= 174 {
        bytes[Unicode.Scalar(byte)] = byte
      } else if let scalar = Unicode.Scalar(next) {
        bytes[scalar] = byte
        next += 1
      }
    }
    return bytes
  }()
}
