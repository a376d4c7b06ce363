internal import Glibc
internal import MobulaCore
internal import Synchronization

/// Where the bytes of an object are that are not in memory.
enum SpilledCopy: Hashable, Sendable {
  case file(SpilledObject)
  case item(RemoteObject)

  var object: ObjectID {
    switch self {
    case .file(let file): file.object
    case .item(let remote): remote.object
    }
  }

  var geometry: ChunkGeometry {
    switch self {
    case .file(let file): file.geometry
    case .item(let remote): remote.header.geometry
    }
  }

  /// As they were given to `write`.
  var flags: UInt64 {
    switch self {
    case .file(let file): file.flags
    case .item(let remote): remote.header.flags
    }
  }

  var isRemote: Bool { if case .item = self { true } else { false } }
}

/// Where a store spills: its folders, which are made when the first object goes there, and, when these have no room
/// or don't work, a place elsewhere.
final class SpillSpace: Sendable {
  private let paths: [String]
  private let instance: SpillInstance
  private let remote: RemoteSpill?
  private let directories = Mutex<SpillDirectories?>(nil)

  /// `nil` without a folder and without a place.
  init?(paths: [String], remote: RemoteSpill? = nil, instance: SpillInstance) {
    if paths.isEmpty && remote == nil { return nil }
    self.paths = paths
    self.remote = remote
    self.instance = instance
  }

  /// The folders that can be used, of which there has to be one.
  ///
  /// - Throws: as `SpillDirectories.init`.
  private func opened() throws(MobulaError) -> SpillDirectories {
    try directories.withLock { directories throws(MobulaError) in
      if let directories { return directories }
      let usable = paths.filter { (try? SpillFolder.check($0)) != nil }
      let made = try SpillDirectories(paths: usable.isEmpty ? paths : usable, instance: instance)
      directories = made
      return made
    }
  }

  /// Why folders can't be used, as far as that shows before the first object goes there.
  var problems: [MobulaError] {
    paths.compactMap { path in
      do throws(MobulaError) {
        try SpillFolder.check(path)
        return nil
      } catch {
        return error
      }
    }
  }

  /// The file of an object, for somebody who reads it into memory of their own; `nil` for one that is in a place.
  func file(_ spilled: SpilledCopy) throws(MobulaError) -> SpillFile? {
    guard case .file(let file) = spilled else { return nil }
    return try opened().open(file)
  }

  /// Writes an object into a folder, or into the place. Blocks. On failure nothing is left.
  ///
  /// - Parameter deadline: when the place is given up; a folder takes as long as its disk does.
  /// - Throws: `MobulaError`: `full` when there are folders alone, and all are full; `unavailable` after the end;
  ///   else `inputOutput`.
  func write(
    _ header: SpillHeader, bytes: UnsafeRawBufferPointer, until deadline: ContinuousClock.Instant
  ) throws(MobulaError) -> SpilledCopy {
    var folders: MobulaError?
    if !paths.isEmpty {
      do throws(MobulaError) {
        return .file(
          try opened().write(
            header.object, geometry: header.geometry, checksums: header.checksums, contains: header.contains,
            flags: header.flags, bytes: bytes))
      } catch {
        if remote == nil { throw error }
        folders = error
      }
    }
    do throws(MobulaError) {
      return .item(try remote!.write(header, bytes: bytes, until: deadline))
    } catch {
      guard let folders else { throw error }
      throw MobulaError(error.code, "\(error.message) The folders before it: \(folders.message)")
    }
  }

  /// Reads an object's bytes, of which every one is verified; the copy stays. Blocks.
  ///
  /// - Throws: `MobulaError`: `notFound`, `corrupted` or `inputOutput` when the copy is no good; with any other code
  ///   it may be read later.
  func read(
    _ spilled: SpilledCopy, into memory: UnsafeMutableRawBufferPointer
  ) throws(MobulaError) -> SpillDirectories.Description {
    switch spilled {
    case .file(let file): return try opened().read(file, into: memory)
    case .item(let object):
      guard let remote else { throw Self.noPlace(object) }
      try remote.read(object, into: memory)
      return (object.header.checksums, object.header.contains)
    }
  }

  private static func noPlace(_ object: RemoteObject) -> MobulaError {
    MobulaError(.unavailable, "Object \(object.object) was spilled to a place that this store does not have.")
  }

  /// What is known of a copy without its bytes; of one in a place it is in memory.
  func describe(_ spilled: SpilledCopy) throws(MobulaError) -> SpillDirectories.Description {
    switch spilled {
    case .file(let file): try opened().describe(file)
    case .item(let object): (object.header.checksums, object.header.contains)
    }
  }

  /// Removes a copy, from a place in the background.
  func remove(_ spilled: SpilledCopy) {
    switch spilled {
    case .file(let file): try? opened().remove(file)
    case .item(let object): remote?.remove(object.item.name)
    }
  }

  // MARK: Start and end

  /// What an earlier store of this instance left; nothing where no folder is. Blocks.
  func recover() throws(MobulaError) -> [SpilledCopy] {
    var found: [SpilledCopy] = []
    if paths.contains(where: { access($0, F_OK) == 0 }) { found += try opened().recover().map { .file($0) } }
    if let remote { found += remote.recover().map { .item($0) } }
    return found
  }

  /// Removes, in the background, what stores left in the place that are no more.
  func clean() { remote?.clean() }

  /// The end begins: whoever waits for the place gets an error.
  func end() { remote?.end() }

  /// Removes everything of this instance, and the folders if they are empty then. Blocks.
  ///
  /// - Parameter limit: when the place is given up.
  func removeAll(until limit: ContinuousClock.Instant? = nil) {
    directories.withLock { directories in
      guard let opened = directories.take() else { return }
      opened.removeAll()
      for path in paths { rmdir(path) }
    }
    remote?.removeAll(until: limit)
  }
}
