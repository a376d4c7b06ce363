import MobulaCore

/// The records of all objects. They lie in blocks, which never move, so that a table that grows neither takes twice its
/// memory nor stands still for long.
struct ObjectTable: Sendable, Sequence {
  private static let blockShift: UInt32 = 10

  private var places: [ObjectID: UInt32] = [:]
  private var blocks: [[ObjectRecord]] = []
  /// Places of records that are gone.
  private var free: [UInt32] = []

  var isEmpty: Bool { places.isEmpty }
  var count: Int { places.count }
  /// In no order.
  var keys: Dictionary<ObjectID, UInt32>.Keys { places.keys }

  subscript(object: ObjectID) -> ObjectRecord? {
    get { places[object].map { record(at: $0) } }
    _modify {
      let place = places[object]
      var record = place.map { take(at: $0) }
      // The record is out of the table meanwhile, so that nothing of it is copied when it is changed.
      defer { put(record.take(), for: object, at: place) }
      yield &record
    }
    set { put(newValue, for: object, at: places[object]) }
  }

  subscript(object: ObjectID, default fresh: @autoclosure () -> ObjectRecord) -> ObjectRecord {
    get { self[object] ?? fresh() }
    _modify {
      let place = places[object]
      var record = place.map { take(at: $0) } ?? fresh()
      defer { put(record, for: object, at: place) }
      yield &record
    }
  }

  mutating func removeValue(forKey object: ObjectID) -> ObjectRecord? {
    guard let place = places.removeValue(forKey: object) else { return nil }
    free.append(place)
    return take(at: place)
  }

  /// In no order.
  func makeIterator() -> AnyIterator<(key: ObjectID, value: ObjectRecord)> {
    var rest = places.makeIterator()
    return AnyIterator { rest.next().map { ($0.key, self.record(at: $0.value)) } }
  }

  /// The objects whose records are so, in their order.
  func objects(where isWanted: (ObjectID, ObjectRecord) -> Bool) -> [ObjectID] {
    places.filter { isWanted($0.key, record(at: $0.value)) }.map(\.key).sorted()
  }

  private func record(at place: UInt32) -> ObjectRecord {
    blocks[Int(place >> Self.blockShift)][Int(place & (1 << Self.blockShift - 1))]
  }

  private mutating func take(at place: UInt32) -> ObjectRecord {
    var record = ObjectRecord()
    swap(&record, &blocks[Int(place >> Self.blockShift)][Int(place & (1 << Self.blockShift - 1))])
    return record
  }

  private mutating func put(_ record: consuming ObjectRecord?, for object: ObjectID, at place: UInt32?) {
    guard let record else {
      guard let place else { return }
      places[object] = nil
      free.append(place)
      _ = take(at: place)
      return
    }
    if let place = place ?? free.popLast() {
      blocks[Int(place >> Self.blockShift)][Int(place & (1 << Self.blockShift - 1))] = record
      places[object] = place
      return
    }
    if blocks.last.map({ $0.count == 1 << Self.blockShift }) ?? true {
      var block: [ObjectRecord] = []
      block.reserveCapacity(1 << Self.blockShift)
      blocks.append(block)
    }
    places[object] = UInt32(blocks.count - 1) << Self.blockShift + UInt32(blocks[blocks.count - 1].count)
    blocks[blocks.count - 1].append(record)
  }
}
