import MobulaControl
import MobulaCore

extension SimulatedHost {
  // MARK: Replicas

  /// Brings an object here, from a host that has it.
  func fetch(_ object: ObjectID) {
    // As `FetchBookStateMachine`: what is being fetched is not fetched twice.
    guard isAlive, store[object] == nil, fetching.insert(object).inserted else { return }
    fetch(object, excluding: [], tries: 3)
  }

  private func fetch(_ object: ObjectID, excluding: [HostID], tries: Int) {
    guard isAlive, store[object] == nil, tries > 0, isRegistered, let link else {
      fetching.remove(object)
      return
    }
    var request = LocateRequest(host: machine.hostID, object: object, excluding: excluding)
    request.waits = world.chance(20)
    let id = link.id
    link.call("locate", within: .seconds(3)) { head, call in
      head.ask(call) { $0.locate($1, request, on: id) }
    } then: { result in
      guard self.isAlive, case .success(.locate(let reply)) = result, !reply.isLocal, self.store[object] == nil,
        let source = reply.sources.first
      else {
        self.fetching.remove(object)
        return
      }
      if self.world.chance(50) { self.report(.partial(object)) }
      self.world.after(self.world.milliseconds(5...80)) {
        guard self.isAlive else { return }
        let machine = self.world.machines.first { $0.hostID == source.host }
        if let machine, machine.isUp, !machine.isPartitioned, !self.machine.isPartitioned,
          let replica = machine.store[object]
        {
          self.machine.store[object] = .init(contents: replica.contents, isPrimary: false)
          self.report(.sealed(object))
          self.fetching.remove(object)
        } else {
          self.report(.gone(object))
          self.fetch(object, excluding: excluding + [source.host], tries: tries - 1)
        }
        let ended = TransferEnded(receiver: self.machine.hostID, object: object)
        self.callRepeatedly("transfer ended") { head, call in
          head.tell(call) { state throws(MobulaError) in
            state.transferEnded(ended)
            return .done
          }
        } then: { _ in
        }
      }
    }
  }

  /// Makes room by what can come again.
  func evict(_ object: ObjectID) {
    guard machine.store[object]?.isPrimary == false else { return }
    machine.store[object] = nil
    report(.gone(object))
  }

  func drop(_ object: ObjectID) {
    machine.store[object] = nil
    notes = notes.filter { $0.value.object != object }
  }

  // MARK: Orders

  var isThere: Bool { isAlive }

  func drop(_ request: DropRequest) {
    guard isAlive, !isClone else { return }
    for object in request.objects {
      world.checkDrop(of: object, at: machine)
      guard machine.store[object] != nil else { continue }
      drop(object)
      report(.gone(object))
    }
  }

  func keep(_ request: KeepRequest) {
    guard !isClone else { return }
    for object in request.objects { machine.store[object]?.isPrimary = true }
  }

  func learn(_ news: NameNews) {
    for name in news.taken { notes[name] = nil }
    for (name, known) in news.given { notes[name] = known }
  }

  // MARK: To compare

  var isCurrent: Bool { isAlive && isRegistered && !isRefused }
  var isIdle: Bool { !isSending && changes.isEmpty && !ledger.hasChanges }
}
