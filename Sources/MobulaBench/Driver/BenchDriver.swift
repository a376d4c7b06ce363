import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import MobulaWire

/// The program whose tasks and actors are measured; runs on host 0, told what to do by the bench.
public enum BenchDriver {
  /// What this process is to do, when it was started as the driver; taken out of its environment,
  /// where those that it starts would find it.
  public static func takeOrders() -> String? {
    guard let orders = currentEnvironment()[DriverOrders.variable] else { return nil }
    unsetenv(DriverOrders.variable)
    return orders
  }

  /// - Parameter text: what `takeOrders` returned.
  /// - Returns: the exit status for this process; the bench was told then why it isn't 0.
  /// - Throws: `MobulaError` when it can't begin.
  public static func run(_ text: String) async throws -> CInt {
    let orders = try JSONDecoder().decode(DriverOrders.self, from: Data(text.utf8))
    var options = ClusterOptions()
    options.workDeadline = .seconds(300)
    options.valueDeadline = .seconds(300)
    // Loaders that download for themselves do so with the driver's credentials: they get none from their hosts.
    options.workerEnvironment = currentEnvironment().filter { $0.key.hasPrefix("AWS_") }
    let cluster = try await Cluster.connect(options)
    let control = try await RPCConnection.connect(
      to: orders.control, token: ClusterToken(orders.token), hello: Hello(role: .driver, name: "bench"))
    let run = DriverRun(orders: orders, cluster: cluster, control: control)
    do {
      try await run.all()
    } catch {
      let failure = error as? MobulaError ?? MobulaError(.workFailed, "The bench's driver failed: \(error).")
      // A bench that is gone has its guardian to say so.
      _ = try? await control.call(BenchControlAPI.failed, DriverFailure(error: failure))
      return 1
    }
    await cluster.close()
    await control.close()
    return 0
  }
}

/// What may end while a case is measured.
private enum Occurrence: Sendable {
  case loaded(Int, LoadTimes)
  /// The fault, so many seconds after the common start.
  case happened(Double)
  case nothing
}

private actor DriverRun {
  private let orders: DriverOrders
  private let cluster: Cluster
  private let control: RPCConnection
  private let expected: SyntheticModel.Digest
  private var loaders: [LoaderPlace: [LoadModel]] = [:]
  /// By the pod that it was made in.
  private var originals: [LoaderPlace: ObjectRef<Blob>] = [:]

  init(orders: DriverOrders, cluster: Cluster, control: RPCConnection) {
    self.orders = orders
    self.cluster = cluster
    self.control = control
    expected = orders.model.digest()
  }

  func all() async throws {
    let cases = try BenchPlan.cases(orders.cases)
    for (index, item) in zip(cases.indices, cases).dropFirst(orders.first).prefix(orders.count) {
      let actors = try await actors(at: item.loaders)
      for _ in 0..<orders.runs {
        var run = try await measure(item, actors)
        run.index = index
        _ = try await control.call(BenchControlAPI.finished, run)
      }
    }
  }

  /// Loaders at these places; those that an earlier case had are used again.
  private func actors(at places: [LoaderPlace]) async throws -> [LoadModel] {
    var result: [LoadModel] = []
    for (place, count) in Dictionary(grouping: places, by: { $0 }).mapValues(\.count) {
      while loaders[place, default: []].count < count {
        let loader = try await cluster.spawn(
          LoadModel.self, with: place.podName, .resources([Name(place.resource): 1], cpu: 0))
        loaders[place, default: []].append(loader)
      }
    }
    var used: [LoaderPlace: Int] = [:]
    for place in places {
      result.append(loaders[place]![used[place, default: 0]])
      used[place, default: 0] += 1
    }
    return result
  }

  /// A model that only the maker's host has.
  private func freshModel(in place: LoaderPlace) async throws -> ObjectRef<Blob> {
    let maker = TaskOptions.resources([Name(place.resource): 1], cpu: 0)
    if originals[place] == nil {
      originals[place] = try cluster.submit(MakeModel(model: orders.model), maker)
    }
    let model = try cluster.submit(RemakeModel(model: originals[place]!), maker)
    let (ready, _) = try await cluster.wait(for: [model], timeout: .seconds(120))
    guard !ready.isEmpty else { throw MobulaError(.deadlineExceeded, "The model was not made within two minutes.") }
    return model
  }

  /// What an earlier run fetched is not to be found again, in any store.
  private func removeFetched() async throws {
    for listing in try await cluster.list() where listing.names.contains(Name(orders.url)) {
      _ = try await cluster.remove("\(listing.object)")
      try await waitUntilGone(listing.object)
    }
  }

  private func waitUntilGone(_ object: ObjectID) async throws {
    for _ in 0..<500 {
      var bytes = 0
      for loader in loaders.values.joined() { bytes += try await loader.bytesOf(object) }
      if bytes == 0 { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw MobulaError(.mismatch, "The model of an earlier run is still in a store before the clock runs.")
  }

  private func measure(_ item: PlannedCase, _ actors: [LoadModel]) async throws -> FinishedRun {
    var reference: ModelReference?
    if case .replication = item.kind {
      let fresh = ModelReference(model: try await freshModel(in: item.maker))
      for holder in try await self.actors(at: item.holders) {
        _ = try await holder.load(fresh, from: .relay, at: monotonicSeconds())
      }
      for (place, actor) in zip(item.loaders, actors) where place.host != item.maker.host {
        let bytes = try await actor.bytesHere(fresh)
        guard bytes == 0 else {
          throw MobulaError(.mismatch, "Host \(place.hostName) has \(bytes) bytes of the model before the clock runs.")
        }
      }
      reference = fresh
    } else {
      try await removeFetched()
    }
    let before = try await control.call(BenchControlAPI.counters, Empty())
    let start = monotonicSeconds() + 0.15
    let (times, faultSeconds) = try await withThrowingTaskGroup(of: Occurrence.self) { group in
      let measured = item.measured
      if let fault = item.fault, let reference, let witness = measured.first {
        let (control, size, actor) = (control, orders.model.size, actors[witness])
        group.addTask {
          while try await Double(actor.bytesHere(reference)) < fault.progress * Double(size) {
            try await Task.sleep(for: .milliseconds(5))
          }
          _ = try await control.call(BenchControlAPI.fault, fault)
          return .happened(monotonicSeconds() - start)
        }
        for index in actors.indices where !measured.contains(index) {
          let actor = actors[index]
          // Whether it succeeds doesn't count.
          group.addTask {
            _ = try? await actor.load(reference, from: .relay, at: start)
            return .nothing
          }
        }
      }
      for index in measured {
        let actor = actors[index]
        let orders = orders
        group.addTask { [reference] in
          switch item.kind {
          case .replication(let policy):
            do {
              return .loaded(index, try await actor.load(reference!, from: policy, at: start))
            } catch let error as MobulaError where item.mayFail {
              let seconds = monotonicSeconds() - start
              return .loaded(index, LoadTimes(seconds: seconds, touched: 0, bytesCopied: 0, error: error))
            }
          case .s3Direct:
            return .loaded(index, try await actor.download(orders.url, s3Endpoint: orders.s3Endpoint, at: start))
          case .s3Planned:
            return .loaded(index, try await actor.fetch(orders.url, s3Endpoint: orders.s3Endpoint, at: start))
          }
        }
      }
      var times: [Int: LoadTimes] = [:]
      var faultSeconds: Double?
      for try await occurrence in group {
        switch occurrence {
        case .loaded(let index, let time): times[index] = time
        case .happened(let seconds): faultSeconds = seconds
        case .nothing: break
        }
        // One that is slow need not end at all.
        if times.count == measured.count { break }
      }
      group.cancelAll()
      return (times, faultSeconds)
    }
    let after = try await control.call(BenchControlAPI.counters, Empty())
    let due = item.fromS3(size: orders.model.size)
    var fromS3 = difference(after.fromS3, before.fromS3)
    // The server counts a body some time after its last byte has arrived here: what is missing comes soon or never.
    for _ in 0..<100 where fromS3.map({ $0 < due }) == true {
      try await Task.sleep(for: .milliseconds(20))
      fromS3 = difference(try await control.call(BenchControlAPI.counters, Empty()).fromS3, before.fromS3)
    }
    for index in item.measured where times[index]?.error == nil {
      try await actors[index].verify(expected)
      try await actors[index].unload()
    }
    withExtendedLifetime(reference) {}
    return FinishedRun(
      index: 0,
      loaders: item.measured.map { index in
        let (place, time) = (item.loaders[index], times[index]!)
        return BenchLoader(
          host: place.hostName, pod: place.podName, seconds: time.seconds, touched: time.touched,
          bytesCopied: time.bytesCopied, error: time.error)
      }, fromS3: fromS3, received: difference(after.received, before.received), faultSeconds: faultSeconds)
  }

  private func difference(_ after: Int?, _ before: Int?) -> Int? {
    guard let after, let before else { return nil }
    return after - before
  }
}
