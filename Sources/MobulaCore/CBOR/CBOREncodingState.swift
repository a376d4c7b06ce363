/// The buffer that one call of `encode` fills, and the containers that are open in it.
///
/// Every container begins with a head of one byte, for no elements, which is set
/// right when its owner is done. Nearly always the innermost container is written,
/// at the end of the buffer. But Codable also lets a program go back to an earlier
/// nested container: then the element is written at the end and moved to its place.
final class CBOREncodingState {
  enum Kind { case undecided, map, array, value }

  /// Names a frame, and no later one that takes its place in `frames`.
  struct FrameID {
    let index: Int
    let serial: Int
  }

  /// What one encoder or nested container writes.
  struct Frame {
    var kind = Kind.undecided
    /// Where its first byte is.
    var head: Int
    /// Where it ends; `nil` for the end of the buffer.
    var end: Int?
    /// Elements of an array, or pairs of a map.
    var count = 0
    /// The frame around it; −1 for none.
    let parent: Int
    /// How many arrays and maps are around it.
    let depth: Int
    let key: (any CodingKey)?
    let serial: Int
    /// The type of a map's keys.
    var keys: ObjectIdentifier?
  }

  // Exclusive access to what changes with every element is not checked at run time: the state
  // stays in one thread, and no code of anybody else's runs while one of these is being changed.

  /// Made when somebody asks for it: most values don't.
  private(set) lazy var userInfo: [CodingUserInfoKey: Any] = sendableUserInfo
  private let sendableUserInfo: [CodingUserInfoKey: any Sendable]
  let buffers: (any CBORBufferSink)?
  @exclusivity(unchecked) var writer = CBORWriter()
  /// What went wrong where Codable has no `throws`; thrown at the next opportunity.
  @exclusivity(unchecked) var failure: (any Error)?
  @exclusivity(unchecked) var frames: [Frame] = []
  /// The frame of the innermost value whose `encode(to:)` is running: only it and those after it may be written.
  @exclusivity(unchecked) var owner = -1
  /// The innermost frame that reaches to the end of the buffer.
  @exclusivity(unchecked) var tip = -1
  /// The type of the keys of the map that was begun last.
  @exclusivity(unchecked) private(set) var latestKeys: ObjectIdentifier?
  /// What dictionaries have for keys, a type of the standard library's that only it can name.
  private static let dictionaryKeys: ObjectIdentifier? = {
    let state = CBOREncodingState(userInfo: [:], buffers: nil)
    try? state.write(["": 0], key: nil, parent: nil)
    return state.latestKeys
  }()
  private var serial = 0

  init(userInfo: [CodingUserInfoKey: any Sendable], buffers: (any CBORBufferSink)?) {
    sendableUserInfo = userInfo
    self.buffers = buffers
  }

  /// Appends a value, in a frame of its own if it needs one. Leaves nothing behind when it throws.
  @inline(__always)
  func write<T: Encodable>(_ value: T, key: (any CodingKey)?, parent: Int?) throws {
    if writer.scalar(value) { return }
    if let number = CBORTypedArray.element(of: T.self), writeRun(value, of: number, parent: parent ?? -1) { return }
    try writeFramed(value, key: key, parent: parent ?? -1)
  }

  private func writeFramed<T: Encodable>(_ value: T, key: (any CodingKey)?, parent: Int) throws {
    let (outerOwner, outerTip, mark) = (owner, tip, writer.bytes.count)
    let id = open(key: key, parent: parent)
    owner = id.index
    defer { (owner, tip) = (outerOwner, outerTip) }
    do {
      try value.encode(to: CBORFrameEncoder(state: self, id: id))
    } catch {
      frames.removeLast(frames.count - id.index)
      writer.bytes.removeLast(writer.bytes.count - mark)
      throw error
    }
    if frames[id.index].count > 1, frames[id.index].kind == .map, frames[id.index].keys == Self.dictionaryKeys {
      sortPairs(of: id.index)
    }
    writeHeads()
    frames.removeLast(frames.count - id.index)
  }

  /// Begins a frame at the end of the buffer, with the head of an empty map until something else is asked for.
  private func open(key: (any CodingKey)?, parent: Int) -> FrameID {
    serial += 1
    frames.append(Frame(head: writer.bytes.count, parent: parent, depth: depth(in: parent), key: key, serial: serial))
    writer.bytes.append(0xA0)
    tip = frames.count - 1
    return FrameID(index: tip, serial: serial)
  }

  /// How many arrays and maps are around what is written in a frame.
  func depth(in parent: Int) -> Int {
    parent < 0 ? 0 : frames[parent].depth + (frames[parent].kind == .value ? 0 : 1)
  }

  /// Begins a frame inside another one's container.
  func nest(_ kind: Kind, key: (any CodingKey)?, pathKey: any CodingKey, in id: FrameID) -> FrameID {
    guard isUsable(id) else {
      fail(outOfTurn(id))
      return FrameID(index: -1, serial: 0)
    }
    let place = reach(id.index)
    let mark = writer.bytes.count
    let outerTip = tip
    if let key { writer.text(key.stringValue) }
    frames[id.index].count += 1
    let nested = open(key: pathKey, parent: id.index)
    if let place {
      // Where the new frame will be is known here, and not to be shifted once more by the move.
      let head = frames[nested.index].head - mark
      let length = writer.bytes.count - mark
      tip = outerTip
      frames[nested.index].head = -1
      move(from: mark, to: place, growing: id.index)
      frames[nested.index].head = place + head
      frames[nested.index].end = place + length
    }
    if kind != .undecided { decide(kind, id: nested) }
    return nested
  }

  /// Makes a frame a map or an array; asking again for the same is how subclasses share a container.
  func decide(_ kind: Kind, id: FrameID) {
    guard isUsable(id) else { return fail(outOfTurn(id)) }
    let frame = frames[id.index]
    guard frame.kind != kind else { return }
    guard frame.kind == .undecided else {
      return fail("A value can be encoded as a map, an array or a single value, not as two of them.", at: id.index)
    }
    guard frame.depth < CBORReader.maximumDepth else {
      return fail("Values can't be nested deeper than \(CBORReader.maximumDepth) arrays and maps.", at: id.index)
    }
    frames[id.index].kind = kind
    if kind == .array { writer.bytes[frame.head] = 0x80 }
  }

  /// Notes what the keys of a frame's map are.
  func note(keys: ObjectIdentifier, id: FrameID) {
    latestKeys = keys
    if isUsable(id) { frames[id.index].keys = keys }
  }

  /// Adds what `body` writes, one value, to the container of a frame.
  @inline(__always)
  func element(_ key: (any CodingKey)?, in id: FrameID, _ body: () throws -> Void) throws {
    guard isUsable(id) else { throw failure ?? outOfTurn(id) }
    let place = reach(id.index)
    let mark = writer.bytes.count
    do {
      if let key { writer.text(key.stringValue) }
      try body()
    } catch {
      writer.bytes.removeLast(writer.bytes.count - mark)
      throw error
    }
    frames[id.index].count += 1
    if let place { move(from: mark, to: place, growing: id.index) }
  }

  /// Makes what `body` writes the one value of a frame, in place of its head.
  @inline(__always)
  func single(_ id: FrameID, _ body: () throws -> Void) throws {
    guard isUsable(id) else { throw failure ?? outOfTurn(id) }
    guard frames[id.index].kind == .undecided else {
      throw error("A value can be encoded as a map, an array or a single value, not as two of them.", at: id.index)
    }
    let place = reach(id.index)
    if place == nil { writer.bytes.removeLast() }
    let mark = writer.bytes.count
    frames[id.index].kind = .value
    do {
      try body()
    } catch {
      frames[id.index].kind = .undecided
      if place == nil { writer.bytes.append(0xA0) }
      throw error
    }
    if let place {
      move(from: mark, to: place, growing: id.index)
      removeHead(of: id.index)
    }
  }

  func isUsable(_ id: FrameID) -> Bool {
    id.index >= owner && id.index < frames.count && frames[id.index].serial == id.serial && failure == nil
  }
}
