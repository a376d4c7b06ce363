package import MobulaCore

/// Small objects that one host takes from another over one connection, each whole: a connection, a search for sources
/// and an exchange for each would take many times as long as their bytes.
package enum SmallObjects {
  /// Bytes of an object, at most, and its header's.
  package static let largest = 262_144 + 4096
  /// Objects that one connection may be asked for before the first has come.
  static let mostWanted = 4096
  /// How long the other host may not know of an object that it has been told to read.
  static let patienceWithUnknown = Duration.seconds(1)
  /// How long an object may be on its way to the host that is asked for it.
  static let patience = Duration.seconds(20)
  /// How long a connection is kept over which nothing comes.
  static let idle = Duration.seconds(2)

  /// All of one object, as it came: its chunks have their checksums.
  package struct Arrival: Sendable {
    package let geometry: ChunkGeometry
    package let bytes: [UInt8]
  }

  /// Whether a peer may announce an object of this shape.
  static func admits(objectSize: Int, chunkSize: Int) -> Bool {
    0...largest ~= objectSize && chunkSize > 0
  }
}
