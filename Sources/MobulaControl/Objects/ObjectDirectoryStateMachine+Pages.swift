import MobulaCore

extension ObjectDirectoryStateMachine {
  /// The first objects behind one, in the order of their identifiers: `count` of them, or fewer where there are no more.
  func objects(after object: ObjectID?, count: Int) -> [ObjectID] {
    // The keys alone, which lie together: a glance at a million takes a few milliseconds.
    var found = records.keys.filter { object == nil || $0 > object! }
    found.keepLeast(count)
    return found.sorted()
  }

  /// Those of the objects that are to be listed.
  func listed(_ objects: [ObjectID]) -> [DirectoryEntry] {
    objects.compactMap { object in
      guard let record = records[object], record.hasExisted || !record.names.isEmpty else { return nil }
      return entry(object, record)
    }
  }
}

extension Array where Element: Comparable {
  /// Keeps the `count` least elements, in any order; takes time proportional to how many there are.
  mutating func keepLeast(_ count: Int) {
    var generator = SeededGenerator(seed: 0)
    var (low, high) = (0, self.count)
    let count = Swift.max(0, count)
    // Below `low` are elements that are kept, from `high` on such as are not.
    while low < count, count < high {
      let pivot = self[Int.random(in: low..<high, using: &generator)]
      var (less, next, greater) = (low, low, high)
      while next < greater {
        if self[next] < pivot {
          swapAt(less, next)
          less += 1
          next += 1
        } else if self[next] > pivot {
          greater -= 1
          swapAt(next, greater)
        } else {
          next += 1
        }
      }
      if count < less {
        high = less
      } else if count < greater {
        break
      } else {
        low = greater
      }
    }
    if count < self.count { removeLast(self.count - count) }
  }
}
