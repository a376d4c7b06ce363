public import MobulaCore
internal import Synchronization

// What can be done with a spilled object while memory has no room for it.

extension Store {
  /// How long a spilled object waits for room that can be had without.
  public static let shortPatience = Duration.seconds(1)

  /// The file of an object that is in a folder and not in memory.
  ///
  /// - Throws: `MobulaError`: `notFound` when it is not here, or its file is gone; `unavailable` when it is in memory,
  ///   or spilled to another place.
  func spillFile(of object: ObjectID) throws(MobulaError) -> SpillFile {
    let found = state.withLock { state in
      state.machine.entries.find(object).map { ($0.entry.phase, state.spilled[$0.number]) }
    }
    guard let (phase, spilled) = found else { throw StoreStateMachine.notFound(object) }
    guard phase == .spilled || phase == .restoring, let spilled, let file = try spill?.file(spilled) else {
      throw MobulaError(.unavailable, "Object \(object) is in no spill file: get it from memory.")
    }
    return file
  }

  /// Whether the object can be read from a file although there is no room for it in memory.
  public func isInFile(_ object: ObjectID) -> Bool { (try? spillFile(of: object)) != nil }

  /// A source that sends from a spill file; `nil` when the object is in none that is whole.
  func spilledSource(_ object: ObjectID) -> (any ChunkSource)? {
    guard let file = try? spillFile(of: object), let header = try? file.header(), header.object == object else {
      return nil
    }
    return SpilledSource(file, header)
  }
}

/// An object to send from its spill file. The receiver compares every chunk with its checksum.
final class SpilledSource: ChunkSource {
  private let file: SpillFile
  private let header: SpillHeader
  let chunkMap: ChunkMap
  let digest: ObjectDigest?

  init(_ file: SpillFile, _ header: SpillHeader) {
    self.file = file
    self.header = header
    var all = ChunkMap(count: header.geometry.count)
    for index in 0..<header.geometry.count { all.insert(index) }
    chunkMap = all
    digest = ObjectDigest(geometry: header.geometry, checksums: header.checksums)
  }

  var object: ObjectID { header.object }
  var geometry: ChunkGeometry { header.geometry }
  var descriptor: CInt { file.descriptor.rawValue }
  var offset: Int { header.length }
  /// What is spilled and no cache entry was made here.
  var isOrigin: Bool { header.flags & 1 == 0 }
  var failure: MobulaError? { nil }

  func checksum(of index: Int) -> UInt32 { header.checksums[index] }

  /// Nothing changes any more.
  func observe(_ body: @escaping @Sendable () -> Void) -> any AnyObject & Sendable { Nothing() }

  private final class Nothing: Sendable {}
}
