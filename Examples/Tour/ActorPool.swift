import Distributed
import Mobula

// A few actors that each hold something that takes long to load, and many questions to them.

distributed actor Scorer: RemoteActor {
  typealias ActorSystem = Cluster
  private let weights: Blob
  private var answered = 0

  init(configuration: ObjectRef<Blob>, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    // Mapped once a host, however many actors it has.
    weights = try await configuration.value
  }

  distributed func score(_ text: String) -> Int {
    answered += 1
    return weights.withUnsafeBytes { weights in text.utf8.reduce(0) { $0 + Int(weights[Int($1)]) } }
  }

  distributed func count() -> Int { answered }
}

@Sendable func actorPool(_ cluster: Cluster, _ arguments: [String]) async throws {
  let weights = try await cluster.put(Blob((0..<256).map { UInt8($0 % 7) }))
  let pool = ActorPool(try await cluster.spawn(Scorer.self, count: 3, with: weights))
  var best = (text: "", score: -1)
  let texts = (0..<300).map { "question number \($0)" }
  for try await (text, score) in pool.map(texts, { scorer, text in (text, try await scorer.score(text)) })
  where (score, text) > (best.score, best.text) { best = (text, score) }
  var answered: [Int] = []
  for actor in pool.actors { answered.append(try await actor.count()) }
  print("\(answered.reduce(0, +)) answers by \(answered.filter { $0 > 0 }.count) actors; the best is \"\(best.text)\"")
}
