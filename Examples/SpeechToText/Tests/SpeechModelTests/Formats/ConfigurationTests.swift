import Foundation
import Testing

@testable import SpeechModel

struct ConfigurationTests {
  @Test func readsSpeech2Text() throws {
    let configuration = try FixtureModel.memorisedS2T.model().configuration
    #expect(configuration.family == .speech2text && configuration.whisper == nil)
    #expect(configuration.dModel == 48 && configuration.encoderLayers == 2 && configuration.decoderLayers == 2)
    #expect(configuration.encoderHeads == 4 && configuration.decoderFFN == 96 && configuration.vocabularySize == 110)
    #expect(configuration.melBins == 80 && configuration.scaleEmbedding && configuration.activation == .relu)
    #expect(configuration.maxSourcePositions == 300 && configuration.maxTargetPositions == 96)
    #expect(configuration.padToken == 1 && configuration.bosToken == 0 && configuration.eosToken == 2)
    #expect(configuration.decoderStartToken == 2)
    // Its files say nothing of the search; the length is all positions then.
    let generation = configuration.generation
    #expect(
      generation.beams == 1 && generation.maxLength == 96 && !generation.earlyStopping && generation.lengthPenalty == 1)
    let own = try #require(configuration.speech2text)
    #expect(own.convChannels == 64 && own.convKernels == [5, 5] && own.samplingRate == 16000)
    #expect(own.normalizeMeans && own.normalizeVariances)
    let vocabulary = try FixtureModel.memorisedS2T.model().vocabulary
    #expect(vocabulary[..<5] == ["<s>", "<pad>", "</s>", "<unk>", "▁h"] && vocabulary[109] == "j")
  }

  @Test func readsWhisper() throws {
    let model = try FixtureModel.tinyWhisper.model()
    let configuration = model.configuration
    #expect(configuration.family == .whisper && configuration.speech2text == nil)
    #expect(configuration.encoderHeads == 2 && configuration.decoderHeads == 4)
    #expect(configuration.encoderFFN == 32 && configuration.decoderFFN == 48 && configuration.decoderLayers == 3)
    #expect(
      configuration.activation == .gelu && !configuration.scaleEmbedding && configuration.decoderStartToken == 261)
    #expect(configuration.generation.beams == 3 && configuration.generation.lengthPenalty == 0.5)
    let whisper = try #require(configuration.whisper)
    #expect(whisper.isMultilingual && whisper.languages == ["en": 262, "de": 263, "haw": 264])
    #expect(whisper.startOfTranscriptToken == 261 && whisper.translateToken == 265 && whisper.transcribeToken == 266)
    #expect(whisper.startOfPreviousToken == 268 && whisper.noSpeechToken == 269 && whisper.noTimestampsToken == 270)
    #expect(whisper.timestampBeginToken == 271)
    #expect(whisper.suppressTokens == [1, 2, 7, 261] && whisper.beginSuppressTokens == [220, 260])
    // vocab.json and added_tokens.json don't name the times: holes.
    #expect(model.vocabulary[..<271] == (try Golden.read().vocabulary)[..<271])
    #expect(model.vocabulary[271...].allSatisfy(\.isEmpty) && model.vocabulary.count == 279)
  }

  /// The fixture with a field of a JSON file in another form.
  private func changed(
    _ fixture: FixtureModel, _ name: String, _ key: String, _ value: String
  ) throws -> [ModelFile] {
    let text = String(decoding: try fixture.bytes(name), as: UTF8.self)
    let changed = text.replacing(try Regex("\"\(key)\": [^\n]*?(?=,?\n)"), with: "\"\(key)\": \(value)")
    let added = changed == text ? text.replacing(/^\{/, with: "{\"\(key)\": \(value),") : changed
    return try fixture.files(replacing: [name: Array(added.utf8)])
  }

  @Test(arguments: [
    ("d_model", "0"), ("d_model", "49"), ("d_model", "\"48\""), ("d_model", "4.8e1"),
    ("d_model", "9223372036854775807"),
    ("d_model", "null"), ("encoder_layers", "3"), ("encoder_layers", "1"), ("encoder_layers", "-1"),
    ("decoder_layers", "1"),
    ("encoder_layers", "1000000000"), ("encoder_attention_heads", "5"), ("encoder_attention_heads", "0"),
    ("encoder_ffn_dim", "95"),
    ("decoder_ffn_dim", "4611686018427387904"), ("vocab_size", "109"), ("vocab_size", "111"), ("vocab_size", "0"),
    ("vocab_size", "-110"), ("vocab_size", "1000000000000"), ("max_source_positions", "299"),
    ("max_target_positions", "0"),
    ("max_target_positions", "9223372036854775807"), ("eos_token_id", "110"), ("pad_token_id", "-1"),
    ("bos_token_id", "1000"),
    ("conv_channels", "63"), ("conv_channels", "62"), ("conv_channels", "0"), ("input_feat_per_channel", "81"),
    ("num_beams", "0"), ("num_beams", "true"), ("max_length", "0"), ("max_length", "-5"), ("length_penalty", "1e999"),
    ("scale_embedding", "1"), ("length_penalty", "\"1\""),
  ])
  func refusesWhatContradicts(_ key: String, _ value: String) throws {
    let error = speechError { _ = try normalised(try changed(.memorisedS2T, "config.json", key, value)) }
    #expect(error?.code == .badModel, "\(error?.message ?? "no error")")
  }

  @Test(arguments: [
    ("model_type", "\"wav2vec2\""), ("activation_function", "\"gelu_new\""), ("early_stopping", "\"never\""),
    ("tie_word_embeddings", "false"), ("input_channels", "2"), ("num_conv_layers", "3"),
  ])
  func refusesWhatIsUnknown(_ key: String, _ value: String) throws {
    let error = speechError { _ = try normalised(try changed(.memorisedS2T, "config.json", key, value)) }
    #expect(error?.code == .unsupported, "\(error?.message ?? "no error")")
  }

  @Test func boundsGeneratedPositions() throws {
    let name = "decoder.embed_positions.weight"
    // The stored ones under another name of the same length, so that they are generated.
    var bytes = try FixtureModel.randomS2T.bytes("model.safetensors")
    let start = try #require(bytes.firstRange(of: Array((name + "s").utf8))).lowerBound
    bytes[start + name.utf8.count] = UInt8(ascii: "x")
    for (positions, isRight) in [("16384", true), ("16385", false), ("1048576", false)] {
      let files = try changed(.randomS2T, "config.json", "max_target_positions", positions)
        .filter { $0.name != "model.safetensors" }
      let error = speechError {
        _ = try ModelNormaliser(files: files + [ModelFile(name: "model.safetensors", contents: bytes)])
      }
      #expect(error?.code == (isRight ? nil : .badModel), "\(positions): \(error?.message ?? "no error")")
    }
  }

  @Test func readsTheSearch() throws {
    for name in ["config.json", "generation_config.json"] {
      func generation(_ key: String, _ value: String) throws -> SpeechConfiguration.Generation {
        try ModelNormaliser(files: try changed(.memorisedS2T, name, key, value)).configuration.generation
      }
      #expect(try generation("num_beams", "5").beams == 5)
      #expect(try generation("max_length", "50").maxLength == 50)
      #expect(try generation("max_length", "200").maxLength == 96)
      #expect(try generation("early_stopping", "true").earlyStopping)
      #expect(try generation("length_penalty", "2").lengthPenalty == 2)
    }
  }

  @Test func readsThePreprocessor() throws {
    func own(_ key: String, _ value: String) throws -> SpeechConfiguration.Speech2Text? {
      try ModelNormaliser(files: try changed(.memorisedS2T, "preprocessor_config.json", key, value)).configuration
        .speech2text
    }
    #expect(try own("normalize_means", "false")?.normalizeMeans == false)
    #expect(try own("normalize_vars", "false")?.normalizeVariances == false)
    #expect(try own("do_ceptral_normalize", "false")?.normalizeMeans == false)
    #expect(speechError { _ = try own("sampling_rate", "8000") }?.code == .unsupported)
    #expect(speechError { _ = try own("num_mel_bins", "40") }?.code == .badModel)
    #expect(speechError { _ = try own("normalize_means", "1") }?.code == .badModel)
  }

  @Test func needsItsFiles() throws {
    let fixture = FixtureModel.memorisedS2T
    for (name, words) in [
      ("config.json", "config.json is missing"), ("vocab.json", "vocabulary is missing"),
      ("pytorch_model.bin", "No model.safetensors, pytorch_model.bin or model.bin"),
    ] {
      let error = speechError { _ = try normalised(try fixture.files(replacing: [:], without: [name])) }
      #expect(error?.code == .badModel && error?.message.contains(words) == true)
    }
    // The rest has defaults.
    let rest: Set = [
      "generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json",
    ]
    #expect(try normalised(try fixture.files(replacing: [:], without: rest)).configuration.eosToken == 2)
    #expect(speechError { _ = try ModelNormaliser(files: []) }?.code == .badModel)
    #expect(speechError { _ = try ModelNormaliser(files: try fixture.files() + fixture.files()) }?.code == .badModel)
    let pointer = Array("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".utf8)
    let error = speechError { _ = try normalised(try fixture.files(replacing: ["pytorch_model.bin": pointer])) }
    #expect(error?.message.contains("Git LFS pointer") == true)
  }

  @Test(arguments: [
    "{\"a\":110}", "{\"a\":-1}", "{\"a\":1.5}", "{\"a\":\"1\"}", "{\"a\":null}", "[\"a\"]", "\"a\"", "",
    "{\"a\":9223372036854775807}",
  ])
  func refusesBadVocabularies(_ text: String) throws {
    let error = speechError {
      _ = try normalised(try FixtureModel.memorisedS2T.files(replacing: ["vocab.json": Array(text.utf8)]))
    }
    #expect(error?.code == .badModel)
  }

  @Test func readsWhisperWithoutItsOwnConfiguration() throws {
    // Without generation_config.json, 279 tokens are those of an English model, by OpenAI's rule.
    let files = try FixtureModel.tinyWhisper.files(replacing: [:], without: ["generation_config.json"])
    let whisper = try #require(try ModelNormaliser(files: files).configuration.whisper)
    #expect(!whisper.isMultilingual && whisper.languages.isEmpty)
    #expect(whisper.noTimestampsToken == 270 && whisper.startOfPreviousToken == 268)
    let bare = try FixtureModel.tinyWhisper.files(replacing: [:], without: ["added_tokens.json"])
    #expect(speechError { _ = try ModelNormaliser(files: bare) }?.message.contains("<|startoftranscript|>") == true)
    for (key, value) in [("suppress_tokens", "[279]"), ("suppress_tokens", "[-1]"), ("prev_sot_token_id", "300")] {
      let files = try changed(.tinyWhisper, "generation_config.json", key, value)
      #expect(speechError { _ = try ModelNormaliser(files: files) }?.code == .badModel, "\(key)")
    }
  }

  @Test func survivesItsOwnJSON() throws {
    for fixture in FixtureModel.allCases {
      let configuration = try fixture.model().configuration
      let decoded = try JSONDecoder().decode(SpeechConfiguration.self, from: Data(configuration.json.utf8))
      #expect(decoded == configuration)
    }
  }
}
