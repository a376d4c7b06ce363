internal import MobulaCore
internal import Synchronization

/// What is kept in memory of an object whose bytes are in a spill file.
struct SpilledObject: Hashable, Sendable {
  let object: ObjectID
  let geometry: ChunkGeometry
  /// Which of the folders, from 0 in the order in which `SpillDirectories` got them.
  let directory: Int
  /// Bytes of the file, its header included.
  let fileSize: Int
  /// As they were given to `write`.
  let flags: UInt64
}

/// The folders into which a store puts objects that have no room in memory.
///
/// Objects are spread over the folders in turn; when one is out of space or broken, the next is
/// tried. Files are private to the user and to the instance: other stores may share the folders,
/// each with an instance of its own. All calls block for as long as the disk takes, and may come
/// from any thread; one object is written, read and removed by one caller at a time. Files are
/// not synced: they outlive the process, not the machine.
final class SpillDirectories: Sendable {
  /// What a file's header holds that is not kept in memory.
  typealias Description = (checksums: [UInt32], contains: [ObjectID])

  private struct State {
    /// The folder that comes first for the next object.
    var next = 0
    /// For good: nothing is written any more.
    var isEnded = false
  }

  /// One of the folders: opened once more when it was removed.
  private final class Place: Sendable {
    private let current: Mutex<SpillFolder>

    init(_ folder: SpillFolder) { current = Mutex(folder) }

    var folder: SpillFolder { current.withLock { $0 } }

    /// The folder that is at the path now, made if there is none; `nil` when it can't be used.
    func reopened(after old: SpillFolder) -> SpillFolder? {
      current.withLock { folder in
        // Another thread may have done so already.
        if folder !== old { return folder }
        guard let new = try? SpillFolder(path: old.path, instance: old.instance, others: []) else { return nil }
        folder = new
        return new
      }
    }
  }

  let instance: SpillInstance
  private let places: [Place]
  private let state = Mutex(State())

  /// Makes the folders where they are missing and takes the instance's lock in each.
  /// Files of an earlier run stay; `recover` takes them over.
  ///
  /// - Parameters:
  ///   - paths: at least one folder; all have to be this user's, and nobody else's to write.
  ///   - instance: the same for a store that is started again, different for any two stores.
  /// - Throws: `MobulaError`: `invalidArgument` for no folder, an impossible path, or a folder given twice; `denied`
  ///   for a folder of other users; `alreadyExists` when the instance is alive elsewhere; else `inputOutput`.
  init(paths: [String], instance: SpillInstance) throws(MobulaError) {
    guard !paths.isEmpty else {
      throw MobulaError(.invalidArgument, "No spill folder is given: name one at least.")
    }
    var folders: [SpillFolder] = []
    do throws(MobulaError) {
      for path in paths { folders.append(try SpillFolder(path: path, instance: instance, others: folders)) }
    } catch {
      for folder in folders { folder.remove(.lock(instance)) }
      throw error
    }
    places = folders.map { Place($0) }
    self.instance = instance
  }

  /// As `init(paths:instance:)`, with the instance's two words.
  convenience init(paths: [String], instance high: UInt64, _ low: UInt64) throws(MobulaError) {
    try self.init(paths: paths, instance: SpillInstance(high: high, low: low))
  }

  // MARK: Objects

  /// Writes an object into one of the folders, in place of a file that it has there. On failure nothing is left.
  ///
  /// - Parameters:
  ///   - checksums: the CRC32C of each chunk, not verified here.
  ///   - flags: given back as they are.
  ///   - bytes: the whole object.
  /// - Throws: `MobulaError`: `full` when no folder has room, `unavailable` after `removeAll`, else `inputOutput`.
  func write(
    _ object: ObjectID, geometry: ChunkGeometry, checksums: [UInt32], contains: [ObjectID], flags: UInt64,
    bytes: UnsafeRawBufferPointer
  ) throws(MobulaError) -> SpilledObject {
    precondition(bytes.count == geometry.objectSize, "all of the object's bytes")
    let header = SpillHeader(
      object: object, geometry: geometry, flags: flags, checksums: checksums, contains: contains)
    let encoded = header.encoded()
    let first = state.withLock { state in
      defer { state.next = (state.next + 1) % places.count }
      return state.next
    }
    var failures: [SpillFailure] = []
    for directory in (0..<places.count).map({ (first + $0) % places.count }) {
      do throws(SpillFailure) {
        if try put(object, header: encoded, bytes: bytes, into: places[directory]) {
          return SpilledObject(
            object: object, geometry: geometry, directory: directory, fileSize: header.fileSize, flags: flags)
        }
      } catch {
        failures.append(error)
        continue
      }
      throw MobulaError(.unavailable, "Object \(object) can't be spilled, since its store has ended.")
    }
    throw SpillFailure.error(of: failures, asked: header.fileSize)
  }

  /// Writes one file; false when `removeAll` came in between. A folder that was removed is made again.
  private func put(
    _ object: ObjectID, header: [UInt8], bytes: UnsafeRawBufferPointer, into place: Place
  ) throws(SpillFailure) -> Bool {
    let folder = place.folder
    do throws(SpillFailure) {
      return try put(object, header: header, bytes: bytes, into: folder)
    } catch {
      guard error.isRemoved, let folder = place.reopened(after: folder) else { throw error }
      return try put(object, header: header, bytes: bytes, into: folder)
    }
  }

  private func put(
    _ object: ObjectID, header: [UInt8], bytes: UnsafeRawBufferPointer, into folder: SpillFolder
  ) throws(SpillFailure) -> Bool {
    let temporary = SpillFileName.temporary(object, instance, .random(in: 0 ... .max))
    try folder.write(temporary, header: header, bytes: bytes)
    // Under the lock, so that no file appears after `removeAll` has looked for them.
    let number: CInt? = state.withLock { state in
      state.isEnded ? nil : folder.rename(temporary, to: .object(object, instance))
    }
    if number != 0 { folder.remove(temporary) }
    guard let number else { return false }
    if number != 0 { throw SpillFailure(folder: folder.path, number: number) }
    return true
  }

  /// Reads an object's bytes, of which every one is verified; the file stays.
  ///
  /// - Parameter memory: as many bytes as the object has. They are rubbish after an error.
  /// - Throws: `MobulaError`: `notFound` when the file is gone, `corrupted` that names the file and the chunk,
  ///   else `inputOutput`.
  func read(_ spilled: SpilledObject, into memory: UnsafeMutableRawBufferPointer) throws(MobulaError) -> Description {
    precondition(memory.count == spilled.geometry.objectSize, "room for all of the object's bytes")
    let file = try SpillFile(spilled.object, in: places[spilled.directory].folder)
    let header = try Self.header(of: file, spilled)
    try file.read(into: memory, header: header)
    return (header.checksums, header.contains)
  }

  /// An object's file, open for reading by others, too.
  ///
  /// - Throws: `MobulaError`: `notFound` when the file is gone, else `inputOutput`.
  func open(_ spilled: SpilledObject) throws(MobulaError) -> SpillFile {
    try SpillFile(spilled.object, in: places[spilled.directory].folder)
  }

  /// Reads what a file's header says, without the object's bytes.
  ///
  /// - Throws: `MobulaError`, as `read` does.
  func describe(_ spilled: SpilledObject) throws(MobulaError) -> Description {
    let header = try Self.header(of: SpillFile(spilled.object, in: places[spilled.directory].folder), spilled)
    return (header.checksums, header.contains)
  }

  private static func header(
    of file: SpillFile, _ spilled: SpilledObject
  ) throws(MobulaError) -> SpillHeader {
    guard file.size == spilled.fileSize else {
      throw SpillHeader.damaged(file.path, "it has \(file.size) bytes in place of \(spilled.fileSize)")
    }
    let header = try file.header()
    guard header.object == spilled.object, header.geometry == spilled.geometry, header.flags == spilled.flags else {
      throw SpillHeader.damaged(file.path, "it is not the file that was written for \(spilled.object)")
    }
    return header
  }

  /// Removes an object's file; nothing when it is gone.
  func remove(_ spilled: SpilledObject) {
    places[spilled.directory].folder.remove(.object(spilled.object, instance))
  }

  // MARK: Start and end

  /// The objects that an earlier run of this instance left, for a store that has started again.
  ///
  /// Looks at headers only: damaged bytes show when they are read. Files of this instance with a damaged
  /// header, and second files of an object, are removed; so is everything of instances that don't live any
  /// more. Files that can't be read now are left alone.
  func recover() -> [SpilledObject] {
    if state.withLock({ $0.isEnded }) { return [] }
    var found: [ObjectID: SpilledObject] = [:]
    for (directory, folder) in places.map(\.folder).enumerated() {
      folder.removeStale()
      for case .object(let object, instance) in folder.names() {
        guard let spilled = Self.examine(object, in: folder, directory) else { continue }
        if found[object] == nil {
          found[object] = spilled
        } else {
          remove(spilled)
        }
      }
    }
    return found.values.sorted { $0.object < $1.object }
  }

  private static func examine(_ object: ObjectID, in folder: SpillFolder, _ directory: Int) -> SpilledObject? {
    do throws(MobulaError) {
      let file = try SpillFile(object, in: folder)
      let header = try file.header()
      guard header.object == object else { throw SpillHeader.damaged(file.path, "it holds another object") }
      return SpilledObject(
        object: object, geometry: header.geometry, directory: directory, fileSize: file.size, flags: header.flags)
    } catch {
      if error.code == .corrupted { folder.remove(.object(object, folder.instance)) }
      return nil
    }
  }

  /// The orderly end of a store: removes this instance's files and its locks. Nothing is written from now on.
  func removeAll() {
    state.withLock { $0.isEnded = true }
    for place in places { place.folder.removeFiles(of: instance) }
  }
}
