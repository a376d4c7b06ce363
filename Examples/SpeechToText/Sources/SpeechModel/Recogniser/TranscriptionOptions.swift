/// How audio is transcribed; whatever is `nil` is as the model's files say.
public struct TranscriptionOptions: Sendable, Hashable {
  public enum Task: String, Sendable, Hashable {
    /// The text in the language that is spoken.
    case transcribe
    /// The text in English; multilingual Whisper only.
    case translate
  }

  /// How many texts are followed at once, from 1 (greedy) to 32.
  public var beams: Int?
  /// What is spoken, as Whisper's code ("en", "yue"); `nil` lets a multilingual model find out.
  public var language: String?
  public var task: Task
  /// The most tokens for a window of audio, with those that the model is prompted with.
  public var maxLength: Int?
  /// Whether Whisper times its text; `nil` where audio is longer than one window (30 s), as it then says where the
  /// next window begins. Without, a segment is a window.
  public var timestamps: Bool?

  public init(
    beams: Int? = nil, language: String? = nil, task: Task = .transcribe, maxLength: Int? = nil,
    timestamps: Bool? = nil
  ) {
    self.beams = beams
    self.language = language
    self.task = task
    self.maxLength = maxLength
    self.timestamps = timestamps
  }
}
