import Glibc
import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// What stays of a store that ended without a word: here, one whose `SpillDirectories` was given up.
struct SpillRecoveryTests {
  private let mine = SpillInstance(high: 1, low: 1), other = SpillInstance(high: 2, low: 2)

  /// A store that writes the samples and dies.
  private func die(_ paths: [String], _ instance: SpillInstance, _ samples: [SpillSample]) throws -> [SpilledObject] {
    let directories = try SpillDirectories(paths: paths, instance: instance)
    return try samples.map { try $0.write(to: directories) }
  }

  @Test func aStoreThatStartsAgainTakesItsFilesOver() async throws {
    try await withSpillFolder { root in
      let paths = ["\(root)/a", "\(root)/b"]
      let samples = try (1...4).map { try SpillSample(UInt64($0), size: 100_000 * $0, contains: $0, flags: 9) }
      let spilled = try die(paths, mine, samples)
      makeFile("\(root)/a/\(samples[0].object).\(mine).77.tmp", count: 5000)
      makeFile("\(root)/b/notes")

      let again = try SpillDirectories(paths: paths, instance: mine)
      #expect(access("\(root)/a/\(samples[0].object).\(mine).77.tmp", F_OK) == -1, "nobody writes it any more")
      #expect(again.recover() == spilled)
      #expect(again.recover() == spilled)
      for (sample, spilled) in zip(samples, spilled) { #expect(try sample.isRead(from: again, spilled)) }
      again.removeAll()
      #expect(files(below: root) == ["b/notes"], "files of others stay")
      unlink("\(root)/b/notes")
    }
  }

  @Test func theFoldersMayComeInAnotherOrder() async throws {
    try await withSpillFolder { root in
      let samples = try (1...4).map { try SpillSample(UInt64($0), size: 1000) }
      #expect(try die(["\(root)/a", "\(root)/b"], mine, samples).map(\.directory) == [0, 1, 0, 1])
      let again = try SpillDirectories(paths: ["\(root)/b", "\(root)/a"], instance: mine)
      let found = again.recover()
      #expect(found.map(\.directory) == [1, 0, 1, 0])
      for (sample, spilled) in zip(samples, found) { #expect(try sample.isRead(from: again, spilled)) }
      again.removeAll()
    }
  }

  @Test func anObjectThatIsThereTwiceIsFoundOnce() async throws {
    try await withSpillFolder { root in
      let sample = try SpillSample(size: 1000)
      _ = try die(["\(root)/a", "\(root)/b"], mine, [sample, sample])
      let again = try SpillDirectories(paths: ["\(root)/a", "\(root)/b"], instance: mine)
      let found = again.recover()
      #expect(found.map(\.directory) == [0])
      #expect(files(below: "\(root)/b") == ["\(mine).lock"])
      again.removeAll()
    }
  }

  @Test func filesOfTheDeadAreRemoved() async throws {
    try await withSpillFolder { root in
      _ = try die([root], other, [SpillSample(1, size: 1000), SpillSample(2, size: 1000)])
      makeFile("\(root)/\(ObjectID(5)).\(other).3.tmp", count: 100)
      let unlocked = SpillInstance(high: 9, low: 9)
      makeFile("\(root)/\(ObjectID(6)).\(unlocked).spill", count: 100)

      let directories = try SpillDirectories(paths: [root], instance: mine)
      let sample = try SpillSample(3, size: 1000)
      let spilled = try sample.write(to: directories)
      #expect(files(below: root).count == 7)
      #expect(directories.recover() == [spilled])
      #expect(files(below: root) == [sample.name(mine), "\(mine).lock"].sorted())
      #expect(try sample.isRead(from: directories, spilled))
      directories.removeAll()
    }
  }

  @Test func filesOfTheLivingStay() async throws {
    try await withSpillFolder { root in
      let living = try SpillDirectories(paths: [root], instance: other)
      let theirs = try SpillSample(1, size: 1000)
      let spilled = try theirs.write(to: living)
      let temporary = "\(ObjectID(5)).\(other).3.tmp"
      makeFile("\(root)/\(temporary)")

      let directories = try SpillDirectories(paths: [root], instance: mine)
      #expect(directories.recover() == [])
      #expect(files(below: root) == [theirs.name(other), temporary, "\(other).lock", "\(mine).lock"].sorted())
      directories.removeAll()
      #expect(files(below: root) == [theirs.name(other), temporary, "\(other).lock"].sorted())
      #expect(try theirs.isRead(from: living, spilled))
      living.removeAll()
    }
  }

  @Test func oneInstanceLivesOnce() async throws {
    try await withSpillFolder { root in
      let first = try SpillDirectories(paths: ["\(root)/b"], instance: mine)
      #expect(
        code { _ = try SpillDirectories(paths: ["\(root)/a", "\(root)/b"], instance: mine) } == .alreadyExists)
      #expect(files(below: root) == ["b/\(mine).lock"], "nothing was taken from who lives, and nothing left")
      first.removeAll()
      // The first still has the lock of a file that is gone.
      let second = try SpillDirectories(paths: ["\(root)/b"], instance: mine)
      withExtendedLifetime(first) {}
      second.removeAll()
    }
  }

  /// Stores come and die at random in two folders that they share, while another sweeps: no living one loses a file.
  @Test(arguments: 1...5 as ClosedRange<UInt64>) func noLivingStoreLosesAFile(seed: UInt64) async throws {
    try await withSpillFolder { root in
      let paths = ["\(root)/a", "\(root)/b"]
      try await withThrowingTaskGroup(of: Void.self) { group in
        for task in 1...3 as ClosedRange<UInt64> {
          group.addTask {
            var generator = SeededGenerator(seed: seed << 8 + task)
            for life in 0..<10 as Range<UInt64> {
              // Always a new instance: one that dies loses its files to whoever sweeps first.
              let directories = try SpillDirectories(paths: paths, instance: SpillInstance(high: task, low: life))
              let samples = try (1...4 as ClosedRange<UInt64>).map { try SpillSample($0, size: 3000) }
              let spilled = try samples.map { try $0.write(to: directories) }
              #expect(directories.recover() == spilled, "seed \(seed)")
              for (sample, spilled) in zip(samples, spilled) {
                #expect(try sample.isRead(from: directories, spilled), "seed \(seed)")
              }
              if Bool.random(using: &generator) { directories.removeAll() }
            }
          }
        }
        try await group.waitForAll()
      }
      let last = try SpillDirectories(paths: paths, instance: mine)
      #expect(last.recover() == [])
      #expect(files(below: root) == ["a/\(mine).lock", "b/\(mine).lock"], "seed \(seed)")
      last.removeAll()
    }
  }
}
