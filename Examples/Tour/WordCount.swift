import Mobula

// Map and reduce over files: each is fetched where it is counted, and the counts are added up pair by pair, wherever they
// lie.

typealias Counts = [String: Int]

struct CountWords: RemoteTask {
  /// An object that has it, or where it is in S3.
  var text: ObjectRef<Blob>?
  var url: String?

  func run(in context: TaskContext) async throws -> Counts {
    let blob: Blob
    if let text { blob = try await text.value } else { blob = try await context.cluster.fetch(url ?? "").value }
    let words = blob.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }.lowercased().split { !$0.isLetter }
    return words.reduce(into: [:]) { $0[String($1), default: 0] += 1 }
  }
}

struct AddCounts: RemoteTask {
  var one: ObjectRef<Counts>
  var other: ObjectRef<Counts>

  func run(in context: TaskContext) async throws -> Counts {
    try await one.value.merging(other.value, uniquingKeysWith: +)
  }
}

@Sendable func wordCount(_ cluster: Cluster, _ urls: [String]) async throws {
  var counts: [ObjectRef<Counts>] = []
  for url in urls { counts.append(try cluster.submit(CountWords(text: nil, url: url))) }
  if urls.isEmpty {
    for text in ["the cat and the dog", "the dog sleeps", "and so does the cat"] {
      let text = try await cluster.put(Blob(Array(text.utf8)))
      counts.append(try cluster.submit(CountWords(text: text, url: nil)))
    }
  }
  // Nothing is waited for: each sum begins when both of its halves are there.
  while counts.count > 1 {
    counts = try stride(from: 0, to: counts.count, by: 2).map { index in
      index + 1 < counts.count
        ? try cluster.submit(AddCounts(one: counts[index], other: counts[index + 1])) : counts[index]
    }
  }
  for (word, count) in try await counts[0].value.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }).prefix(3) {
    print("\(word) \(count)")
  }
}
