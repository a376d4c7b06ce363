internal import MobulaCore
internal import MobulaTransfer

/// What the shells of a receiver and of a source do.
extension TransferSimulation {
  // MARK: Receiving

  mutating func headSaid(_ message: SimulatedMessage, to host: Int) {
    switch message {
    case .located(let sources):
      if hosts[host].hasReplica {
        let actions = hosts[host].exchange.found(sources, now: now)
        perform(actions, host)
      } else {
        // It reserves memory, and says so, before it begins.
        hosts[host].sources = sources
        hosts[host].hasReplica = true
        tellHead(.partial, from: host)
      }
    case .notLocated(let error):
      if hosts[host].hasReplica {
        let actions = hosts[host].exchange.refused(error, now: now)
        perform(actions, host)
      } else {
        failed(host, error)
      }
    case .done:
      guard !hosts[host].hasBegun else { return }
      hosts[host].hasBegun = true
      let actions = hosts[host].exchange.started(hosts[host].sources, now: now)
      perform(actions, host)
      setTimer(.tick, after: options.limits.tick, at: host)
    default: violations.append("the head said \(message)")
    }
  }

  private mutating func failed(_ host: Int, _ error: MobulaError) {
    guard hosts[host].failure == nil, hosts[host].completed == nil else { return }
    hosts[host].failure = error
    waiting -= 1
    tellHead(.gone, from: host)
    for connection in hosts[host].services { network.close(connection, at: host) }
    for connection in hosts[host].services { serviceEnded(connection, host) }
  }

  mutating func perform(_ actions: [ExchangeStateMachine.Action], _ host: Int) {
    var written = (lane: 0, acknowledged: Int?.none, requested: Int?.none)
    func flush(_ simulation: inout Self) {
      if written.acknowledged != nil || written.requested != nil {
        simulation.say(
          .wants(acknowledged: written.acknowledged, requested: written.requested), host, written.lane)
      }
      written = (0, nil, nil)
    }
    var closing: [Int] = []
    for action in actions {
      switch action {
      case .acknowledge(let lane, let chunk):
        if written.acknowledged == nil, written.requested == nil {
          written = (lane, chunk, nil)
        } else {
          say(.wants(acknowledged: chunk, requested: nil), host, lane)
        }
      case .request(let lane, let chunk):
        if written.lane != lane || written.requested != nil { flush(&self) }
        written.lane = lane
        written.requested = chunk
      case .cancel(let lane, let chunk):
        flush(&self)
        say(.cancel(chunk), host, lane)
      case .open(let lane, let source): open(lane, source, host)
      case .close(let lane): closing.append(lane)
      case .findSources:
        tellHead(
          .locate(known: hosts[host].exchange.knownHosts, failed: hosts[host].exchange.failedHosts), from: host)
      case .complete:
        hosts[host].completed = now
        waiting -= 1
        tellHead(.sealed, from: host)
      case .fail(let error): failed(host, error)
      }
    }
    flush(&self)
    for lane in closing {
      if let connection = hosts[host].lanes.first(where: { $0.lane == lane })?.connection {
        laneEnded(connection, host, nil)
      }
    }
  }

  private mutating func say(_ message: SimulatedMessage, _ host: Int, _ lane: Int) {
    guard let connection = hosts[host].lanes.first(where: { $0.lane == lane })?.connection else { return }
    network.send(message, bytes: message.bytes, over: connection, from: host)
  }

  private mutating func open(_ lane: Int, _ source: HostID, _ host: Int) {
    let costs = options.costs
    let delay = (costs.latency * 2 + costs.message) * costs.connectRoundTrips
    let server = Int(source.low)
    let connection = network.connect(from: host, to: server, delay: delay)
    links.append(Link(lane: lane))
    hosts[host].lanes.append((lane, connection))
    if !network.isAlive(server) || network.isCut(host, server) {
      setTimer(.stalled(connection), after: costs.stall, at: host)
    }
  }

  mutating func sourceSaid(_ message: SimulatedMessage, _ connection: Connection, _ host: Int) {
    guard links[connection].isUsed else { return }
    let lane = links[connection].lane
    let geometry = options.geometry
    do {
      switch message {
      case .opened(let wantsNews):
        try hosts[host].exchange.opened(
          lane, objectSize: geometry.objectSize, chunkSize: geometry.chunkSize, wantsNews: wantsNews, now: now)
      case .offer(let ranges):
        let actions = try hosts[host].exchange.offered(lane, ranges, now: now)
        perform(actions, host)
      case .chunk: arrived(connection, host)
      default: violations.append("a source said \(message)")
      }
    } catch {
      violations.append("\(error)")
      laneEnded(connection, host, error)
    }
  }

  mutating func began(_ chunk: Int, _ isDamaged: Bool, _ connection: Connection) {
    guard links[connection].isUsed else { return }
    if links[connection].isVerifying {
      links[connection].next = (chunk, isDamaged)
      return
    }
    let host = network.client(of: connection)
    let header = ChunkHeader(index: chunk, length: options.geometry.range(of: chunk).count, checksum: 0)
    do {
      links[connection].isDamaged = isDamaged
      links[connection].isWanted = try hosts[host].exchange.announced(links[connection].lane, header) == .receive
    } catch {
      violations.append("\(error)")
      laneEnded(connection, host, error)
    }
  }

  /// The last byte of a chunk is here.
  private mutating func arrived(_ connection: Connection, _ host: Int) {
    if links[connection].isVerifying {
      links[connection].nextIsHere = true
      return
    }
    guard links[connection].isWanted else {
      let actions = hosts[host].exchange.discarded(links[connection].lane, now: now)
      return perform(actions, host)
    }
    links[connection].isVerifying = true
    let costs = options.costs
    let last = min(costs.verifiedAtOnce, options.geometry.chunkSize)
    setTimer(.verified(connection), after: costs.chunk + .seconds(Double(last) / costs.verification), at: host)
  }

  mutating func verified(_ connection: Connection, _ host: Int) {
    links[connection].isVerifying = false
    guard links[connection].isUsed else { return }
    if links[connection].isDamaged {
      laneEnded(connection, host, MobulaError(.corrupted, "A chunk came with a wrong checksum."))
      return
    }
    links[connection].isWanted = false
    let missing = hosts[host].exchange.chunksMissing
    let actions = hosts[host].exchange.arrived(links[connection].lane, now: now)
    hosts[host].commits += 1
    if hosts[host].exchange.chunksMissing != missing - 1 { violations.append("host \(host) has a chunk twice") }
    perform(actions, host)
    if hosts[host].offers != nil {
      let verified = hosts[host].exchange.verified
      hosts[host].offers?.verified(verified)
      for service in hosts[host].services { step(service, host) }
    }
    if let next = links[connection].next {
      links[connection].next = nil
      began(next.chunk, next.isDamaged, connection)
      if links[connection].nextIsHere {
        links[connection].nextIsHere = false
        arrived(connection, host)
      }
    }
  }

  mutating func laneEnded(_ connection: Connection, _ host: Int, _ error: MobulaError?) {
    guard links[connection].isUsed else { return }
    links[connection].isUsed = false
    network.close(connection, at: host)
    hosts[host].lanes.removeAll { $0.connection == connection }
    let actions = hosts[host].exchange.ended(links[connection].lane, error, now: now)
    perform(actions, host)
  }

  // MARK: Sending

  mutating func accepted(_ connection: Connection) {
    let server = network.server(of: connection)
    let geometry = options.geometry
    guard hosts[server].hasReplica, hosts[server].failure == nil else { return network.close(connection, at: server) }
    links[connection].sender = SenderStateMachine(geometry: geometry)
    hosts[server].services.append(connection)
    if hosts[server].offers == nil {
      hosts[server].offers = OfferStateMachine(
        count: geometry.count, isOrigin: server == 0, window: 2 * options.limits.chunksInFlight(geometry))
      let verified = hosts[server].exchange.verified
      hosts[server].offers?.verified(verified)
    }
    hosts[server].offers?.joined(UInt64(connection))
    network.send(
      .opened(wantsNews: server == 0), bytes: SimulatedMessage.opened(wantsNews: true).bytes,
      over: connection,
      from: server)
    if hosts[server].hasBegun {
      let actions = hosts[server].exchange.offered([hosts[network.client(of: connection)].id], now: now)
      perform(actions, server)
    }
    step(connection, server)
  }

  mutating func receiverSaid(_ message: SimulatedMessage, _ connection: Connection, _ host: Int) {
    guard links[connection].sender != nil else { return }
    do {
      switch message {
      case .wants(let acknowledged, let requested):
        if let acknowledged {
          try links[connection].sender?.acknowledged(acknowledged)
          hosts[host].offers?.acknowledged(UInt64(connection), acknowledged)
        }
        if let requested { try links[connection].sender?.requested(requested) }
      case .cancel(let chunk): links[connection].sender?.cancelled(chunk)
      default: violations.append("a receiver said \(message)")
      }
    } catch {
      violations.append("\(error)")
      network.close(connection, at: host)
      return serviceEnded(connection, host)
    }
    step(connection, host)
  }

  mutating func departed(_ connection: Connection, _ host: Int) {
    guard links[connection].sender != nil else { return }
    links[connection].sender?.sent()
    links[connection].isSending = false
    step(connection, host)
  }

  /// Tells the receiver what is new, and sends it the next chunk.
  private mutating func step(_ connection: Connection, _ host: Int) {
    guard !links[connection].isSending, links[connection].sender != nil else { return }
    if let news = hosts[host].offers?.take(UInt64(connection)), !news.isEmpty {
      links[connection].sender?.tell(news)
      let message = SimulatedMessage.offer(news)
      network.send(message, bytes: min(4096, message.bytes), over: connection, from: host)
    }
    guard let (chunk, range) = links[connection].sender?.next() else { return }
    links[connection].isSending = true
    let message = SimulatedMessage.chunk(chunk, isDamaged: hosts[host].corruptNext)
    hosts[host].corruptNext = false
    network.send(message, bytes: max(4097, range.count + message.bytes), over: connection, from: host)
  }

  mutating func serviceEnded(_ connection: Connection, _ host: Int) {
    guard links[connection].sender != nil else { return }
    links[connection].sender = nil
    hosts[host].services.removeAll { $0 == connection }
    let hasNews = hosts[host].offers?.left(UInt64(connection)) ?? false
    if hosts[host].offers?.isIdle == true { hosts[host].offers = nil }
    if hasNews { for service in hosts[host].services { step(service, host) } }
  }
}
