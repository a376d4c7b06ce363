internal import Glibc
internal import MobulaCore
internal import Synchronization

/// A store's spill folders, which are made when the first object goes there.
final class SpillSpace: Sendable {
  private let paths: [String]
  private let instance: SpillInstance
  private let directories = Mutex<SpillDirectories?>(nil)

  /// `nil` without a folder.
  init?(paths: [String], instance: SpillInstance) {
    if paths.isEmpty { return nil }
    self.paths = paths
    self.instance = instance
  }

  /// - Throws: as `SpillDirectories.init`.
  func opened() throws(MobulaError) -> SpillDirectories {
    try directories.withLock { directories throws(MobulaError) in
      if let directories { return directories }
      let made = try SpillDirectories(paths: paths, instance: instance)
      directories = made
      return made
    }
  }

  /// What an earlier store of this instance left there; nothing where no folder is.
  func recover() throws(MobulaError) -> [SpilledObject] {
    guard paths.contains(where: { access($0, F_OK) == 0 }) else { return [] }
    return try opened().recover()
  }

  func remove(_ spilled: SpilledObject) { try? opened().remove(spilled) }

  /// Removes everything of this instance, and the folders if they are empty then.
  func removeAll() {
    directories.withLock { directories in
      guard let opened = directories.take() else { return }
      opened.removeAll()
      for path in paths { rmdir(path) }
    }
  }
}
