import Glibc
import MobulaCore
import MobulaTestKit

@testable import MobulaStore

extension Identifier {
  /// A short name for tests.
  init(_ low: UInt64) { self.init(high: 0, low: low) }
}

/// A store with a folder of its own, both gone with it.
final class TemporaryStore {
  let folder: String
  let path: String
  /// In the names of its memfds, to tell them from those of other tests.
  let name: String
  let store: Store

  init(capacity: ByteCount = .megabytes(64), onEvict: @escaping @Sendable ([ObjectID]) -> Void = { _ in }) throws {
    var template = Array("/tmp/mobula-store-XXXXXX".utf8CString)
    precondition(mkdtemp(&template) != nil, "no folder in /tmp: \(errnoText(currentErrno()))")
    folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    path = folder + "/store.sock"
    name = String(folder.dropFirst(5))
    store = try Store(capacity: capacity, socket: path, name: name, onEvict: onEvict)
    try store.start()
  }

  deinit {
    store.close()
    unlink(path)
    rmdir(folder)
  }

  /// Puts `bytes` as an object, as a client process does.
  @discardableResult
  func put(_ object: ObjectID, _ bytes: [UInt8], by client: StoreClientID) async throws -> ReplicaInfo {
    try write(object, bytes, by: client)
    return try await store.seal(object, client: client)
  }

  func write(_ object: ObjectID, _ bytes: [UInt8], by client: StoreClientID) throws {
    let placement = try store.create(object, size: bytes.count, client: client)
    let mapped = try StoreClient(descriptorSocket: path).map(placement)
    mapped.withUnsafeMutableBytes { $0.copyBytes(from: bytes) }
  }
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

private func entries(of folder: String) -> [String] {
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
