public import MobulaCore
internal import Synchronization

/// Some chunks of an object that is being received, as a sink of their own: what the exchange leaves to S3.
///
/// To be released when nobody writes into it any more.
public final class ReservedChunks: ChunkSink {
  private let exchange: ObjectExchange
  /// Everything that was reserved, in order.
  public let runs: [Range<Int>]
  /// What nobody has claimed, in order.
  private let free: Mutex<[Range<Int>]>

  init(_ exchange: ObjectExchange, _ runs: [Range<Int>]) {
    self.exchange = exchange
    self.runs = runs
    free = Mutex(runs)
  }

  /// Bytes of all of them.
  public var bytes: Int {
    runs.joined().reduce(0) { $0 + geometry.range(of: $1).count }
  }

  /// What was not committed is for others.
  public func release() {
    free.withLock { $0 = [] }
    for run in runs { exchange.unreserve(run) }
  }

  public var object: ObjectID { exchange.sink.object }
  public var geometry: ChunkGeometry { exchange.sink.geometry }
  public var chunkMap: ChunkMap { exchange.sink.chunkMap }

  public func claimChunk(from start: Int) -> Int? {
    while let chunk = takeFree(from: start) {
      if exchange.sink.claim(chunk) { return chunk }
    }
    return nil
  }

  private func takeFree(from start: Int) -> Int? {
    free.withLock { free in
      guard let place = free.firstIndex(where: { $0.upperBound > start }) else { return nil }
      let run = free[place]
      let chunk = max(start, run.lowerBound)
      let rest = [run.lowerBound..<chunk, chunk + 1..<run.upperBound].filter { !$0.isEmpty }
      free.replaceSubrange(place...place, with: rest)
      return chunk
    }
  }

  public func memory(of index: Int) -> UnsafeMutableRawBufferPointer { exchange.sink.memory(of: index) }

  public func commit(_ index: Int, checksum: UInt32) {
    exchange.sink.commit(index, checksum: checksum, isOwn: true)
    exchange.filled(index, bytes: geometry.range(of: index).count)
  }

  public func abandon(_ index: Int) {
    exchange.sink.abandon(index)
    free.withLock { free in
      let place = free.firstIndex { $0.lowerBound > index } ?? free.count
      free.insert(index..<index + 1, at: place)
    }
  }
}
