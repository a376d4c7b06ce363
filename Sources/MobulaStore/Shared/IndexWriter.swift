internal import MobulaCore
internal import Synchronization

/// The store's side of the index. One thread at a time calls it.
///
/// `@unchecked Sendable`: used under the store's lock alone.
final class IndexWriter: @unchecked Sendable {
  let reader: IndexReader
  let descriptor: SharedDescriptor
  /// For clients.
  let readOnly: SharedDescriptor
  private var table: IndexLayout.Table
  private var live = 0
  private var tombstones = 0
  /// Bytes of entries whose pages are reserved.
  private var reservedEntries = 0
  private static let entryStep = 1 << 16

  /// An empty index.
  ///
  /// - Throws: `MobulaError`: `full` without memory for it, else `inputOutput`.
  static func make(instance: (high: UInt64, low: UInt64)) throws(MobulaError) -> IndexWriter {
    let descriptor = try MemoryFile.create(name: "mobula-index", size: IndexLayout.size, isReserved: false)
    try MemoryFile.reserve(0..<IndexLayout.headerSize, of: descriptor.rawValue)
    let writer = try IndexWriter(SharedDescriptor(descriptor))
    try writer.reserve(writer.table)
    writer.header(.version).pointee.store(IndexLayout.version, ordering: .relaxed)
    writer.header(.instanceHigh).pointee.store(instance.high, ordering: .relaxed)
    writer.header(.instanceLow).pointee.store(instance.low, ordering: .relaxed)
    writer.header(.incarnation).pointee.store(1, ordering: .relaxed)
    writer.header(.nextSegment).pointee.store(1, ordering: .relaxed)
    writer.header(.nextClient).pointee.store(1, ordering: .relaxed)
    writer.header(.table).pointee.store(writer.table.word, ordering: .releasing)
    writer.header(.magic).pointee.store(IndexLayout.magic, ordering: .releasing)
    return writer
  }

  /// The index of a store that died. Its entries are there; `restore` or `clear` each of them, then `rebuild`.
  ///
  /// - Throws: `MobulaError`: `mismatch` for another version's, `corrupted`.
  static func takeOver(_ descriptor: SharedDescriptor) throws(MobulaError) -> IndexWriter {
    let writer = try IndexWriter(descriptor)
    guard writer.header(.magic).pointee.load(ordering: .acquiring) == IndexLayout.magic,
      writer.header(.version).pointee.load(ordering: .relaxed) == IndexLayout.version
    else {
      throw MobulaError(.mismatch, "The index that was kept is another version's: stop all processes and start anew.")
    }
    let limit = writer.entryLimit
    guard limit <= IndexLayout.maximumEntries else {
      throw MobulaError(
        .corrupted, "The index that was kept names \(limit) entries: stop all processes and start anew.")
    }
    writer.table = IndexLayout.Table(word: writer.header(.table).pointee.load(ordering: .relaxed))
    writer.reservedEntries = (limit * IndexLayout.entrySize + entryStep - 1) / entryStep * entryStep
    _ = writer.header(.incarnation).pointee.wrappingAdd(1, ordering: .relaxed)
    return writer
  }

  private init(_ descriptor: SharedDescriptor) throws(MobulaError) {
    self.descriptor = descriptor
    reader = IndexReader(try MemoryMapping(descriptor.rawValue, count: IndexLayout.size, access: .readWrite))
    readOnly = SharedDescriptor(try MemoryFile.readOnly(of: descriptor))
    table = IndexLayout.Table(bits: IndexLayout.tableBits.lowerBound, half: 0, number: 1)
  }

  func header(_ word: IndexLayout.HeaderWord) -> UnsafeMutablePointer<SharedWord> { reader.header(word) }

  var entryLimit: Int { Int(truncatingIfNeeded: header(.entryLimit).pointee.load(ordering: .relaxed)) }
  var incarnation: UInt64 { header(.incarnation).pointee.load(ordering: .relaxed) }
  var instance: (high: UInt64, low: UInt64) {
    (header(.instanceHigh).pointee.load(ordering: .relaxed), header(.instanceLow).pointee.load(ordering: .relaxed))
  }

  /// The next number of a segment or a client: never given out twice, not even after a restart.
  func takeNumber(_ word: IndexLayout.HeaderWord) -> UInt64 {
    header(word).pointee.wrappingAdd(1, ordering: .relaxed).oldValue
  }

  /// Bytes of its pages that are reserved, about.
  var reservedBytes: Int { IndexLayout.headerSize + reservedEntries + table.count * 8 }

  private func reserve(_ table: IndexLayout.Table) throws(MobulaError) {
    try MemoryFile.reserve(table.offset..<table.offset + table.count * 8, of: descriptor.rawValue)
  }

  // MARK: Entries

  /// Makes room for entry `number`, before anything is decided that needs it.
  ///
  /// - Throws: `MobulaError` (`full`).
  func ensureRoom(for number: Int) throws(MobulaError) {
    guard number < IndexLayout.maximumEntries else {
      throw MobulaError(
        .full, "The store holds \(IndexLayout.maximumEntries) objects, which is the most: remove some with `mobula rm`."
      )
    }
    let end = (number + 1) * IndexLayout.entrySize
    if end > reservedEntries {
      let next = (end + Self.entryStep - 1) / Self.entryStep * Self.entryStep
      try MemoryFile.reserve(
        IndexLayout.headerSize + reservedEntries..<IndexLayout.headerSize + next, of: descriptor.rawValue)
      reservedEntries = next
    }
    if (live + tombstones + 1) * 10 > table.count * 6 { try rebuild() }
  }

  /// Makes an object findable in an entry that is empty.
  ///
  /// - Precondition: `ensureRoom` was called for this number.
  func publish(_ number: Int, _ object: ObjectID, segment: UInt64, offset: Int, size: Int, shape: UInt64) {
    let entry = reader.entry(number)
    let state = entry[0].load(ordering: .relaxed)
    precondition(state & 0xFF == IndexLayout.State.empty, "entry \(number) is in use")
    entry[1].store(object.high, ordering: .relaxed)
    entry[2].store(object.low, ordering: .relaxed)
    entry[3].store(segment, ordering: .relaxed)
    entry[4].store(UInt64(offset), ordering: .relaxed)
    entry[5].store(UInt64(size), ordering: .relaxed)
    entry[6].store(shape, ordering: .relaxed)
    if number >= entryLimit { header(.entryLimit).pointee.store(UInt64(number + 1), ordering: .relaxed) }
    entry[0].store(state & ~0xFF | IndexLayout.State.ready, ordering: .releasing)
    insert(number, hash: IndexLayout.hash(object))
  }

  /// What the index says of an entry, whatever its state.
  func contents(of number: Int) -> (
    state: UInt64, object: ObjectID, segment: UInt64, offset: Int, size: Int, shape: UInt64
  ) {
    let entry = reader.entry(number)
    func word(_ index: Int) -> UInt64 { entry[index].load(ordering: .relaxed) }
    return (
      entry[0].load(ordering: .acquiring) & 0xFF, ObjectID(high: word(1), low: word(2)), word(3),
      Int(truncatingIfNeeded: word(4)), Int(truncatingIfNeeded: word(5)), word(6)
    )
  }

  // MARK: Retiring

  /// Whether a client may know the entry: it is ready, or was when a client pinned it.
  func isPublished(_ number: Int) -> Bool {
    number < entryLimit && reader.entry(number)[0].load(ordering: .relaxed) & 0xFF != IndexLayout.State.empty
  }

  /// First of two steps: nobody can pin these from now on without the scan that follows seeing it.
  func beginRetiring(_ numbers: some Sequence<Int>) {
    for number in numbers {
      let state = reader.entry(number)[0].load(ordering: .relaxed)
      // A doomed one can't be pinned anyway, and must not look like one to be kept to the store after this one.
      guard state & 0xFF != IndexLayout.State.doomed else { continue }
      reader.entry(number)[0].store(state & ~0xFF | IndexLayout.State.evicting, ordering: .relaxed)
    }
    // Store-load: our states before our reads of the pins, as in each client its pin before its second look.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
  }

  /// Second step for an entry that is pinned, and stays.
  func restore(_ number: Int) { setState(number, IndexLayout.State.ready) }

  /// Second step for an entry that is pinned, and is to be found no more.
  func doom(_ number: Int) {
    setState(number, IndexLayout.State.doomed)
    removeBucket(of: number)
  }

  /// Second step for an entry that nobody pins: its memory may be used for other things afterwards.
  func retire(_ number: Int) {
    removeBucket(of: number)
    clear(number)
  }

  /// A doomed entry that nobody pins any more; its bucket is gone already.
  func clear(_ number: Int) {
    let state = reader.entry(number)[0].load(ordering: .relaxed)
    // A generation is ready for one object only.
    reader.entry(number)[0].store((state >> 8 &+ 1) << 8 | IndexLayout.State.empty, ordering: .releasing)
  }

  private func setState(_ number: Int, _ state: UInt64) {
    let word = reader.entry(number)[0].load(ordering: .relaxed)
    reader.entry(number)[0].store(word & ~0xFF | state, ordering: .releasing)
  }

  // MARK: Buckets

  private func insert(_ number: Int, hash: UInt64) {
    let buckets = reader.word(at: table.offset)
    var bucket = Int(hash >> UInt64(64 - table.bits))
    while true {
      let word = buckets[bucket].load(ordering: .relaxed)
      if word == 0 || word == IndexLayout.tombstone {
        if word != 0 { tombstones -= 1 }
        buckets[bucket].store(UInt64(UInt32(truncatingIfNeeded: hash)) << 32 | UInt64(number + 1), ordering: .releasing)
        live += 1
        return
      }
      bucket = (bucket + 1) & (table.count - 1)
    }
  }

  private func removeBucket(of number: Int) {
    let entry = reader.entry(number)
    let hash = IndexLayout.hash(
      ObjectID(high: entry[1].load(ordering: .relaxed), low: entry[2].load(ordering: .relaxed)))
    let buckets = reader.word(at: table.offset)
    let mask = table.count - 1
    let wanted = UInt64(UInt32(truncatingIfNeeded: hash)) << 32 | UInt64(number + 1)
    var bucket = Int(hash >> UInt64(64 - table.bits))
    while true {
      let word = buckets[bucket].load(ordering: .relaxed)
      // A table is never full; what is not in it was doomed before.
      if word == 0 { return }
      if word == wanted { break }
      bucket = (bucket + 1) & mask
    }
    live -= 1
    // What a search would pass over on its way to nothing can as well end it.
    if buckets[(bucket + 1) & mask].load(ordering: .relaxed) == 0 {
      buckets[bucket].store(0, ordering: .releasing)
      var before = (bucket - 1) & mask
      while buckets[before].load(ordering: .relaxed) == IndexLayout.tombstone {
        buckets[before].store(0, ordering: .releasing)
        tombstones -= 1
        before = (before - 1) & mask
      }
    } else {
      buckets[bucket].store(IndexLayout.tombstone, ordering: .releasing)
      tombstones += 1
    }
  }

  /// Makes a new table of all entries that can be found, in the other half or twice as big.
  ///
  /// - Throws: `MobulaError` (`full`); the old table stays in use then.
  func rebuild() throws(MobulaError) {
    var numbers: [Int] = []
    for number in 0..<entryLimit where contents(of: number).state == IndexLayout.State.ready { numbers.append(number) }
    var bits = IndexLayout.tableBits.lowerBound
    while numbers.count * 10 > 3 << bits, bits < IndexLayout.tableBits.upperBound { bits += 1 }
    bits = max(bits, table.bits - 1)
    let half = bits == table.bits ? 1 - table.half : 0
    let old = table
    let next = IndexLayout.Table(bits: bits, half: half, number: table.number &+ 1)
    try reserve(next)
    // A client may still be searching here, in the table that this once was: it finds that the table changed.
    let buckets = reader.word(at: next.offset)
    for bucket in 0..<next.count { buckets[bucket].store(0, ordering: .relaxed) }
    table = next
    live = 0
    tombstones = 0
    for number in numbers {
      let entry = reader.entry(number)
      insert(
        number,
        hash: IndexLayout.hash(
          ObjectID(high: entry[1].load(ordering: .relaxed), low: entry[2].load(ordering: .relaxed))))
    }
    header(.table).pointee.store(next.word, ordering: .releasing)
    if old.bits != next.bits { MemoryFile.giveBack(old.offset..<old.offset + old.count * 8, of: descriptor.rawValue) }
  }
}
