import Glibc
import MobulaCore
import MobulaTestKit

@testable import MobulaStore

extension Identifier {
  /// A short name for tests.
  init(_ low: UInt64) { self.init(high: 0, low: low) }
}

func randomBytes(_ count: Int, seed: UInt64) -> [UInt8] {
  var generator = SeededGenerator(seed: seed)
  return (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
}

/// This process's descriptors of memfds called `name`, and of sockets bound to `path`.
func openDescriptors(memory name: String, socket path: String) -> Int {
  let inodes = Set(
    lines(of: "/proc/net/unix").filter { $0.hasSuffix(path) }.map {
      "socket:[\($0.split(separator: " ")[6])]"
    })
  return entries(of: "/proc/self/fd").filter { entry in
    var buffer = [UInt8](repeating: 0, count: 512)
    let count = buffer.withUnsafeMutableBytes {
      readlink("/proc/self/fd/\(entry)", $0.baseAddress!.assumingMemoryBound(to: CChar.self), 512)
    }
    let target = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    return target.hasPrefix("/memfd:\(name)") || inodes.contains(target)
  }.count
}

func entries(of folder: String) -> [String] {
  guard let directory = opendir(folder) else { return [] }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    names.append(
      withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      })
  }
  return names
}

private func lines(of file: String) -> [Substring] {
  let descriptor = open(file, O_RDONLY | O_CLOEXEC)
  defer { close(descriptor) }
  var text: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65_536)
  while case let count = read(descriptor, &buffer, buffer.count), count > 0 { text += buffer.prefix(count) }
  return String(decoding: text, as: UTF8.self).split(separator: "\n")
}

/// The code of the error that `body` throws.
func code(_ body: () throws -> Void) -> MobulaError.Code? {
  do {
    try body()
    return nil
  } catch {
    return (error as? MobulaError)?.code
  }
}
