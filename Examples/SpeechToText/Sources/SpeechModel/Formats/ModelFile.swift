internal import Foundation

/// One of the files that a model came in: its name and its bytes.
public struct ModelFile: @unchecked Sendable {
  /// The name without a directory: `config.json`.
  public let name: String
  /// Valid as long as the owner lives, and not written to by anybody: the reason that this may be `Sendable`.
  public let bytes: UnsafeRawBufferPointer
  /// Keeps the bytes.
  public let owner: any AnyObject & Sendable

  public init(name: String, bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
    self.name = name
    self.bytes = bytes
    self.owner = owner
  }

  /// A file with a copy of some bytes.
  public init(name: String, contents: some Sequence<UInt8>) {
    let owner = OwnedBytes(Array(contents))
    self.init(name: name, bytes: owner.bytes, owner: owner)
  }

  /// Maps a file read-only.
  ///
  /// - Throws: `system`, if it can't be opened or mapped.
  public init(path: String) throws(SpeechError) {
    let owner = try MappedFile(path: path)
    self.init(name: path.split(separator: "/").last.map(String.init) ?? path, bytes: owner.bytes, owner: owner)
  }

  /// Maps those files of a model's directory that can matter, in the order of their names.
  ///
  /// - Throws: `system`, if the directory can't be listed or a file not be mapped.
  public static func directory(_ path: String) throws(SpeechError) -> [ModelFile] {
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    } catch {
      throw SpeechError(.system, "The directory \(path) can't be listed: check that it is there and may be read.")
    }
    var files: [ModelFile] = []
    for name in names where canMatter(name) {
      files.append(try ModelFile(path: "\(path)/\(name)"))
    }
    return files
  }

  /// Whether a file of that name in a model's directory can be one of the model.
  public static func canMatter(_ name: String) -> Bool {
    name.hasSuffix(".json") || ModelNormaliser.isWeights(name) || name == "vocabulary.txt"
  }
}

/// A file mapped read-only until it is let go.
///
/// The mapping is private; still, whoever shortens the file meanwhile ends this process with a bus error:
/// give a model a new name instead of overwriting it.
public final class MappedFile: @unchecked Sendable {
  /// Begins at a page. Never written to, so it may be read from anywhere.
  public let bytes: UnsafeRawBufferPointer

  /// - Throws: `system`, if the file can't be opened, is empty or can't be mapped.
  public init(path: String) throws(SpeechError) {
    func fail(_ what: String) -> SpeechError {
      SpeechError(.system, "The file \(path) can't be \(what) (\(String(cString: strerror(errno)))): check it.")
    }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw fail("opened") }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw fail("examined") }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw SpeechError(.system, "\(path) is not a regular file, so it can't be mapped: name a file.")
    }
    let count = Int(status.st_size)
    guard count > 0 else {
      bytes = UnsafeRawBufferPointer(start: nil, count: 0)
      return
    }
    guard let address = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0), address != MAP_FAILED else {
      throw fail("mapped")
    }
    bytes = UnsafeRawBufferPointer(start: address, count: count)
  }

  deinit {
    // The address and length are those of the mapping, which nobody else ends.
    if let address = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: address), bytes.count) }
  }
}

/// Bytes of our own, 64-byte aligned.
final class OwnedBytes: @unchecked Sendable {
  /// Never written to after `init`, so it may be read from anywhere.
  let bytes: UnsafeRawBufferPointer

  convenience init(_ contents: [UInt8]) {
    self.init(count: contents.count) { $0.copyBytes(from: contents) }
  }

  /// - Parameter fill: writes the bytes, which are zero before.
  init<E: Error>(count: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(E) -> Void) throws(E) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    bytes = UnsafeRawBufferPointer(memory)
    try fill(memory)
  }

  deinit { bytes.deallocate() }
}
