/// Makes text of speech with a model that lies in memory of somebody else.
///
/// It holds views of the model and never a copy of a weight, so that any number of recognisers share one mapping.
/// It doesn't change: calls from several threads at once are fine, and each works in memory of its own, on the thread
/// that called.
public final class SpeechRecogniser: @unchecked Sendable {
  // Everything is set once, and the pointers inside lead to the model's memory, which nobody writes to and `model`
  // keeps: the reason that this may be `Sendable`.
  public let model: NormalisedModel
  let encoder: AudioEncoder
  let decoder: TokenDecoder
  let detokeniser: Detokeniser

  /// The audio that is transcribed at once, in seconds; a smaller model may have less.
  static let windowSeconds = 30

  /// - Throws: `badModel`, if a tensor is missing or misshapen; `unsupported`, if Whisper's window is longer than 30 s.
  public init(_ model: NormalisedModel) throws(SpeechError) {
    self.model = model
    encoder = try AudioEncoder(model)
    decoder = try TokenDecoder(model)
    detokeniser = Detokeniser(model)
    let longest = Self.windowSeconds * AudioSamples.sampleRate
    guard model.configuration.family != .whisper || encoder.maxInputFrames * LogMelSpectrogram.hop <= longest else {
      throw SpeechError(
        .unsupported,
        "The model has windows of \(model.configuration.maxSourcePositions) positions; Whisper's have at most 1500.")
    }
  }

  /// Transcribes audio that is in memory.
  ///
  /// What is longer than a window of 30 s is taken in several: Whisper's timestamps say where each one begins; others
  /// are cut at the quietest place of their last ten seconds. A window of digital silence has no text.
  ///
  /// - Parameter progress: Called after each window, on the caller's thread; what it throws ends the transcription.
  /// - Throws: `unsupported` for options that the model can't follow, and what `progress` throws.
  public func transcribe(
    _ audio: AudioSamples, options: TranscriptionOptions = TranscriptionOptions(),
    progress: (TranscriptionProgress) throws(SpeechError) -> Void = { _ in }
  ) throws(SpeechError) -> Transcription {
    let run = try TranscriptionRun(self, options, ArraySource(audio.samples))
    return try run.run(progress)
  }

  /// Transcribes an audio file in any format that libsndfile reads, at any length up to 6 hours: it is read window by
  /// window. Else as `transcribe(_:options:progress:)`.
  ///
  /// - Throws: Also `badAudio` for a file that is missing, no audio, empty, damaged or too long.
  public func transcribe(
    path: String, options: TranscriptionOptions = TranscriptionOptions(),
    progress: (TranscriptionProgress) throws(SpeechError) -> Void = { _ in }
  ) throws(SpeechError) -> Transcription {
    let run = try TranscriptionRun(self, options, AudioFile(path: path))
    return try run.run(progress)
  }
}
