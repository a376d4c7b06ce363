import FoundationEssentials
import Glibc
import MobulaCore
import MobulaSupervisor

/// A file that is put, and the name that it gets.
struct PutItem: Hashable {
  let path: String
  let name: String

  /// What the paths of a command line mean: files, and folders with all files in them.
  ///
  /// A file's name is its last part, and a folder's files are called as they lie in it, below the folder's own name
  /// unless `name` is there. `name` is the only file's name, or with a `/` at its end what every name begins with.
  /// - Parameter isBelowFolder: whether the folder's own name is left out.
  /// - Throws: `MobulaError`: `invalidArgument` for names that can't be given so, `inputOutput`.
  static func all(_ paths: [String], name: String?, isBelowFolder: Bool) throws(MobulaError) -> [PutItem] {
    var items: [PutItem] = []
    let isPrefix = name?.utf8.last == UInt8(ascii: "/")
    var hasFolder = false
    for path in paths {
      if path.isEmpty { throw MobulaError(.invalidArgument, "The path of a file can't be empty.") }
      var status = stat()
      guard path != "-", stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
        let own = lastPart(path)
        guard let name, !isPrefix else {
          items.append(PutItem(path: path, name: (name ?? "") + own))
          continue
        }
        items.append(PutItem(path: path, name: name))
        continue
      }
      hasFolder = true
      let start: String
      if let name { start = name } else { start = isBelowFolder ? "" : try ownName(of: path) + "/" }
      let files = try files(in: path)
      guard !files.isEmpty else { throw MobulaError(.notFound, "No files are in the folder \(path).") }
      let folder = path.utf8.last == UInt8(ascii: "/") ? path : path + "/"
      items += files.map { PutItem(path: folder + $0, name: start + $0) }
    }
    guard isPrefix || name == nil || items.count == 1 && !hasFolder else {
      throw MobulaError(
        .invalidArgument,
        "--name \(name!) can be the name of one file only: with a / at its end all names begin with it.")
    }
    var known: [Name: String] = [:]
    for item in items {
      if let other = known.updateValue(item.path, forKey: Name(item.name)) {
        throw MobulaError(
          .invalidArgument,
          "\(other) and \(item.path) would both be called \(item.name): put them one by one, each with a --name or a prefix of its own."
        )
      }
    }
    guard items.allSatisfy({ !$0.name.isEmpty }) else {
      throw MobulaError(.invalidArgument, "The object needs a name: give one with --name.")
    }
    return items
  }

  private static func lastPart(_ path: String) -> String {
    path == "-" ? "" : String(decoding: path.utf8.split(separator: UInt8(ascii: "/")).last ?? [], as: UTF8.self)
  }

  /// Of `.` and the like the name that it really has.
  private static func ownName(of folder: String) throws(MobulaError) -> String {
    let last = lastPart(folder)
    if !last.isEmpty, last != ".", last != ".." { return last }
    guard let real = realpath(folder, nil) else { throw MobulaError.system("\(folder) can't be read") }
    defer { free(real) }
    let name = lastPart(String(cString: real))
    guard !name.isEmpty else {
      throw MobulaError(.invalidArgument, "The folder \(folder) has no name: give one with --name NAME/.")
    }
    return name
  }

  /// The paths of a folder's files below it, in order. Links to files count, links to folders don't, which could lead in circles.
  private static func files(in folder: String) throws(MobulaError) -> [String] {
    var result: [String] = []
    var open = [""]
    while let below = open.popLast() {
      let names: [String]
      do { names = try FileManager.default.contentsOfDirectory(atPath: folder + "/" + below) } catch {
        throw MobulaError(.inputOutput, "The folder \(folder)/\(below) can't be read: check that it may be.")
      }
      for name in names {
        let path = below.isEmpty ? name : "\(below)/\(name)"
        var own = stat()
        var target = stat()
        let full = folder.hasSuffix("/") ? folder + path : "\(folder)/\(path)"
        guard lstat(full, &own) == 0 else {
          // What is no UTF-8 comes repaired, and so as the name of nothing.
          if currentErrno() == ENOENT, path.unicodeScalars.contains("\u{FFFD}") {
            throw MobulaError(.invalidArgument, "The name of \(full) is not in UTF-8: rename the file.")
          }
          throw MobulaError.system("\(full) can't be read")
        }
        guard stat(full, &target) == 0 else {
          throw MobulaError.system(
            "\(full) leads nowhere: remove the link, or give the files one by one. It can't be read")
        }
        if own.st_mode & S_IFMT == S_IFDIR {
          open.append(path)
        } else if target.st_mode & S_IFMT == S_IFREG {
          result.append(path)
        } else if target.st_mode & S_IFMT != S_IFDIR {
          // Reading it may wait for ever, or never end; who wants it names it.
          Log.write(STDERR_FILENO, "\(full.printable) is no file, and is not put.\n")
        }
      }
    }
    return result.sorted()
  }
}
