internal import Synchronization

/// What this process has moved between hosts since it started, over all servers and fetches.
public enum TransferCounters {
  private static let sent = Atomic<Int>(0)
  private static let received = Atomic<Int>(0)
  private static let corrupted = Atomic<Int>(0)

  /// Bytes of chunks handed to the network, without headers.
  public static var bytesSent: Int { sent.load(ordering: .relaxed) }
  /// Bytes of chunks taken from the network, without headers, right or wrong.
  public static var bytesReceived: Int { received.load(ordering: .relaxed) }
  /// Chunks that arrived with a wrong checksum.
  public static var corruptedChunks: Int { corrupted.load(ordering: .relaxed) }

  static func addSent(_ count: Int) { sent.add(count, ordering: .relaxed) }
  static func addReceived(_ count: Int) { received.add(count, ordering: .relaxed) }
  static func addCorruptedChunk() { corrupted.add(1, ordering: .relaxed) }
}
