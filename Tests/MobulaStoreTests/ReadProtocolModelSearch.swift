/// One step of somebody, for traces.
enum ModelStep {
  case client(Int, ModelClient.Step)
  case clientDrain(Int)
  case store(ModelStore.Step)
  case storeDrain(ModelLocation, UInt8)
  case leftOut(ModelStore.Step)
  case clientDies(Int)
  case pinsFall(Int)
  case death
  case successorStarts
}

extension ModelStep: CustomStringConvertible {
  var description: String {
    switch self {
    case .client(let number, let step): "client \(number): \(step)"
    case .clientDrain(let number): "(client \(number)'s pin word is seen)"
    case .store(let step): "store: \(step)"
    case .storeDrain(let location, let value):
      location == .state
        ? "(state \(ModelWord.kind(value))|\(ModelWord.generation(value)) is seen)" : "(\(location) \(value) is seen)"
    case .leftOut(let step): "(no \(step))"
    case .clientDies(let number): "client \(number) dies"
    case .pinsFall(let number): "client \(number)'s pins fall"
    case .death: "the store dies"
    case .successorStarts: "the next store starts"
    }
  }
}

/// What the search of a model came to.
struct ModelResult {
  /// Different states that were reached; up to the order of the clients.
  var states = 0
  /// Steps between them.
  var steps = 0
  var violation: ModelViolation?
  /// A shortest way to the violation.
  var trace: [ModelStep] = []
  /// Reads of pinned words, and states in which all programs have ended: where there are none, the search has shown
  /// nothing.
  var pinnedReads = 0
  var endings = 0
  /// States from which nothing follows though a program has not ended, or a pin is left.
  var stuck = 0
  /// The store's buffer filled up somewhere, and what lies behind was left out.
  var isTruncated = false
}

extension ReadProtocolModel {
  /// Goes to every state that can be reached, breadth first, and stops at the first violation.
  func search() -> ModelResult {
    var result = ModelResult()
    var states: [ModelState] = []
    var parents: [UInt32] = []
    var table = [UInt32](repeating: .max, count: 1 << 12)

    func slot(of state: ModelState) -> Int {
      var slot = Int(truncatingIfNeeded: state.hash) & (table.count - 1)
      while table[slot] != .max, states[Int(table[slot])] != state { slot = (slot + 1) & (table.count - 1) }
      return slot
    }
    func add(_ state: ModelState, after parent: UInt32) {
      var state = state
      if clients == 2 { state.order() }
      let place = slot(of: state)
      guard table[place] == .max else { return }
      table[place] = UInt32(states.count)
      states.append(state)
      parents.append(parent)
      if states.count * 2 > table.count {
        table = [UInt32](repeating: .max, count: table.count * 2)
        for (index, state) in states.enumerated() { table[slot(of: state)] = UInt32(index) }
      }
    }

    add(initial, after: .max)
    var index = 0
    while index < states.count && result.violation == nil {
      let state = states[index]
      if state.bufferIsFull { result.isTruncated = true }
      var isLast = true
      forEachSuccessor(of: state) { next, step, violation in
        guard result.violation == nil else { return }
        isLast = false
        result.steps += 1
        if case .client(let number, .word0) = step, state[client: number].believes { result.pinnedReads += 1 }
        if let violation {
          result.violation = violation
          result.trace = trace(to: index, in: states, parents) + [step]
        } else {
          add(next, after: UInt32(index))
        }
      }
      if isLast && result.violation == nil {
        let clientsHaveEnded = [state.first, state.second].allSatisfy { $0.getsLeft == 0 && $0.pin == 0 }
        if clientsHaveEnded && state.store.step == .finished { result.endings += 1 } else { result.stuck += 1 }
      }
      index += 1
    }
    result.states = states.count
    return result
  }

  private func trace(to last: Int, in states: [ModelState], _ parents: [UInt32]) -> [ModelStep] {
    var trace: [ModelStep] = []
    var index = last
    while parents[index] != .max {
      let parent = Int(parents[index])
      var found: ModelStep?
      forEachSuccessor(of: states[parent]) { next, step, _ in
        var next = next
        if clients == 2 { next.order() }
        if next == states[index] && found == nil { found = step }
      }
      if let found { trace.append(found) }
      index = parent
    }
    return trace.reversed()
  }
}
