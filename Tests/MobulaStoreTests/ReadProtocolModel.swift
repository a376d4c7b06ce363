/// How far a modelled processor may depart from doing one access after the other.
enum ModelMemory: CaseIterable {
  /// Every store is seen at once.
  case sequential
  /// Stores wait in a first-in, first-out buffer of their thread (x86).
  case totalStoreOrder
  /// Stores to different words leave the buffer in any order; a release store leaves it after all earlier ones.
  case partialStoreOrder
  /// The same, and a client's loads and stores happen in any order that acquire, release, fences, the order of
  /// accesses to one word, and branches before stores allow. Loads run ahead of branches and of the loads that
  /// their address came from.
  case weak
}

/// One difference from the protocol: a mistake that the model must find, or an order that it does not need.
enum ModelChange: CaseIterable {
  case none
  case clientWithoutFence
  case storeWithoutFence
  /// Pin and mark are release stores, followed by acquire loads.
  case acquireReleaseInsteadOfFences
  case withoutRecheck
  case withoutGeneration
  case retireWithoutScan
  case insertNotReleased
  case unpinNotReleased
  case stateNotAcquired
  case doomedFreedWithoutScan
  /// The memory may be reused from the moment that the scan has found no pin, before the state is empty.
  case freedBeforeEmpty
  /// The store drops the pins of a client that lives on when its connection ends.
  case pinsFallWithSocket
  case successorWithoutScan
  case successorForgetsGenerations
  case recheckNotAcquired
  case putBackNotReleased
  case retireNotReleased
  case bucketRelaxed
  case doomedScannedWithoutFence
  case successorWithoutFence
}

/// The read protocol of the store's index (see the article ReadProtocol) in small steps: one entry, one bucket, the
/// two words of its object's memory, up to two clients with a pin word each, and the store.
///
/// The clients get object A. The store evicts A, puts B into the same memory and entry, then A again, as far as
/// `incarnations` says, and tries again for ever while a pin holds it up. The tags of A and B are taken to be the
/// same, so that a bucket always leads to the entry.
struct ReadProtocolModel {
  let memory: ModelMemory
  let change: ModelChange
  let clients: Int
  /// Gets of each client: at most two.
  let gets: Int
  /// How many objects follow each other in the entry: A, B, A. At most three.
  let incarnations: UInt8
  /// The store deletes the first object: pinned, it is doomed and not put back.
  let deletes: Bool
  /// How many stores die, each at any step, and are followed by another.
  let deaths: UInt8
  /// Clients may die at any step; their pins fall when the kernel says that they are gone.
  let clientsDie: Bool
  /// For each client step the steps that have to be done before it.
  private let waits: [UInt16]
  /// The client steps that this change leaves out.
  private let omitted: UInt16

  init(
    _ memory: ModelMemory, _ change: ModelChange = .none, clients: Int = 2, gets: Int = 1, incarnations: UInt8 = 2,
    deletes: Bool = false, deaths: UInt8 = 0, clientsDie: Bool = false
  ) {
    precondition(1...2 ~= clients && 1...2 ~= gets && 2...3 ~= incarnations && deaths < 4)
    self.memory = memory
    self.change = change
    self.clients = clients
    self.gets = gets
    self.incarnations = incarnations
    self.deletes = deletes
    self.deaths = deaths
    self.clientsDie = clientsDie
    omitted =
      switch change {
      case .clientWithoutFence, .acquireReleaseInsteadOfFences: ModelClient.Step.fence.bit
      case .withoutRecheck: ModelClient.Step.recheck.bit
      default: 0
      }
    waits = ModelClient.Step.allCases.map { later in
      ModelClient.Step.allCases.prefix(Int(later.rawValue)).reduce(0) { mask, earlier in
        let waits = memory != .weak || later.mustFollow(earlier, change)
        return waits ? mask | earlier.bit : mask
      }
    }
  }

  var initial: ModelState {
    var state = ModelState()
    state.store = ModelStore(deathsLeft: deaths)
    state[.state] = ModelWord.ready(generation: 1)
    for location in [ModelLocation.bucket, .id, .place, .word0, .word1] { state[location] = 1 }
    state.first = ModelClient(gets: gets, omitted: omitted)
    if clients == 2 { state.second = state.first }
    return state
  }

  /// Calls `emit` with every state that can follow.
  func forEachSuccessor(of state: ModelState, _ emit: (ModelState, ModelStep, ModelViolation?) -> Void) {
    for client in 0..<clients {
      if state[client: client].hasBuffered {
        var next = state
        next[client: client].drain()
        emit(next, .clientDrain(client), nil)
      }
      endings(of: client, state, emit)
      for step in ModelClient.Step.allCases where isEnabled(step, state[client: client]) {
        clientStep(step, of: client, state, emit)
      }
    }
    storeDrains(state, emit)
    storeSteps(state, emit)
  }

  // MARK: Client

  private func isEnabled(_ step: ModelClient.Step, _ client: ModelClient) -> Bool {
    let done = client.done
    guard client.getsLeft > 0, done & step.bit == 0, waits[Int(step.rawValue)] & ~done == 0 else { return false }
    return step != .fence || !client.hasBuffered
  }

  /// The death of a client, which ends its accesses, and the fall of its pins.
  private func endings(
    of number: Int, _ state: ModelState, _ emit: (ModelState, ModelStep, ModelViolation?) -> Void
  ) {
    let client = state[client: number]
    if clientsDie && client.getsLeft > 0 {
      var next = state
      next[client: number].die()
      emit(next, .clientDies(number), nil)
    }
    // What a process had stored before it died is seen before anybody hears of its death.
    let isGone = client.isDead && !client.hasBuffered
    if client.pin != 0 && (isGone || change == .pinsFallWithSocket) {
      var next = state
      next[client: number].pin = 0
      emit(next, .pinsFall(number), nil)
    }
  }

  private func clientStep(
    _ step: ModelClient.Step, of number: Int, _ state: ModelState,
    _ emit: (ModelState, ModelStep, ModelViolation?) -> Void
  ) {
    var client = state[client: number]
    var violation: ModelViolation?
    var missed = false
    client.done |= step.bit
    switch step {
    case .bucket:
      missed = state[.bucket] != 1
    case .state:
      client.seen = state[.state]
      missed = !ModelWord.isReady(client.seen)
    case .id:
      missed = state[.id] != 1
    case .place:
      client.place = state[.place]
    case .pin:
      client.write(1, buffered: memory != .sequential)
    case .fence:
      break
    case .recheck:
      client.isFailing = state[.state] != client.seen
      if client.isFailing {
        // The words are not read, or what was read ahead is thrown away.
        client.done |= ModelClient.Step.word0.bit | ModelClient.Step.word1.bit
      } else if client.hasReadAmiss {
        violation = .wrongBytes
      }
      client.seen = 0
    case .word0, .word1:
      let word = state[step == .word0 ? .word0 : .word1]
      let isRight = word == client.place && client.place != 2 && client.place == state.store.live
      if !isRight && client.believes { violation = .wrongBytes }
      if !isRight && !client.believes { client.hasReadAmiss = true }
    case .unpin:
      client.write(0, buffered: memory != .sequential)
    }
    if missed || client.done == ModelClient.Step.all { client.endGet(omitted: omitted) }
    var next = state
    next[client: number] = client
    emit(next, .client(number, step), violation)
  }

  // MARK: Store

  private func storeDrains(_ state: ModelState, _ emit: (ModelState, ModelStep, ModelViolation?) -> Void) {
    var seen: UInt8 = 0
    for index in 0..<state.buffered {
      let entry = state.bufferedStore(index)
      let isFree = seen & 1 << entry.location.rawValue == 0 && !(entry.isRelease && index > 0)
      if index == 0 || (memory != .totalStoreOrder && isFree) {
        var next = state
        next.drain(index)
        emit(next, .storeDrain(entry.location, entry.value), nil)
      }
      seen |= 1 << entry.location.rawValue
    }
  }

  private func storeSteps(_ state: ModelState, _ emit: (ModelState, ModelStep, ModelViolation?) -> Void) {
    let store = state.store
    if store.isDead {
      // What a process had stored before it died is seen by the one that follows.
      guard state.buffer == 0 else { return }
      var next = state
      next.store.isDead = false
      next.store.step = .successor
      return emit(next, .successorStarts, nil)
    }
    if store.deathsLeft > 0 && store.step != .finished {
      var next = state
      next.store.isDead = true
      next.store.deathsLeft -= 1
      for client in 0..<clients { next[client: client].isScanned = false }
      emit(next, .death, nil)
    }
    let generation = change == .withoutGeneration ? 1 : store.incarnation
    let newGeneration =
      store.forgets || change == .withoutGeneration ? 1 : store.incarnation + 1
    func put(_ location: ModelLocation, _ value: UInt8, release: Bool = false, then step: ModelStore.Step) {
      guard memory == .sequential || !state.bufferIsFull else { return }
      var next = state
      if memory == .sequential { next[location] = value } else { next.append(location, value, release) }
      next.store.step = step
      var violation: ModelViolation?
      if store.step == (change == .freedBeforeEmpty ? .tombstone : .empty) {
        next.store.live = 0
        if (0..<clients).contains(where: { state[client: $0].believes }) { violation = .freedWhileRead }
      }
      if store.step == .ready { next.store.live = store.incarnation + 1 }
      if store.step == .publish {
        next.store.incarnation += 1
        if next.store.incarnation == incarnations { next.store.step = .finished }
      }
      emit(next, .store(store.step), violation)
    }
    func fence(isLeftOut: Bool, then step: ModelStore.Step) {
      guard isLeftOut || state.buffer == 0 else { return }
      var next = state
      next.store.step = step
      emit(next, isLeftOut ? .leftOut(store.step) : .store(store.step), nil)
    }
    func scan(found: ModelStore.Step) {
      for number in 0..<clients where !state[client: number].isScanned {
        var next = state
        next[client: number].isScanned = true
        let isPinned = state[client: number].pin != 0
        if isPinned || (0..<clients).allSatisfy({ next[client: $0].isScanned }) {
          for client in 0..<clients { next[client: client].isScanned = false }
          next.store.step = isPinned ? found : .tombstone
        }
        emit(next, .store(store.step), nil)
      }
    }

    let storeFenceIsLeftOut = change == .storeWithoutFence || change == .acquireReleaseInsteadOfFences
    switch store.step {
    case .mark:
      put(
        .state, ModelWord.evicting(generation: generation), release: change == .acquireReleaseInsteadOfFences,
        then: .fence)
    case .fence:
      fence(isLeftOut: storeFenceIsLeftOut, then: change == .retireWithoutScan ? .tombstone : .scan)
    case .scan:
      scan(found: deletes && store.incarnation == 1 ? .doom : .putBack)
    case .putBack:
      put(
        .state, ModelWord.ready(generation: generation), release: change != .putBackNotReleased,
        then: .mark)
    case .doom:
      put(.state, ModelWord.doomed(generation: generation), release: true, then: .doomBucket)
    case .doomBucket:
      put(.bucket, 2, then: change == .doomedFreedWithoutScan ? .tombstone : .doomFence)
    case .doomFence:
      fence(isLeftOut: change == .doomedScannedWithoutFence, then: .doomScan)
    case .doomScan:
      scan(found: .doomFence)
    case .tombstone:
      put(.bucket, 2, then: .empty)
    case .empty:
      put(
        .state, ModelWord.empty(generation: newGeneration), release: change != .retireNotReleased,
        then: .word0)
    case .word0: put(.word0, store.incarnation + 1, then: .word1)
    case .word1: put(.word1, store.incarnation + 1, then: .id)
    case .id: put(.id, store.incarnation == 1 ? 2 : 1, then: .place)
    case .place: put(.place, store.incarnation + 1, then: .ready)
    case .ready:
      put(
        .state, ModelWord.ready(generation: newGeneration), release: change != .insertNotReleased,
        then: .publish)
    case .publish:
      put(.bucket, 1, release: change != .bucketRelaxed, then: .mark)
    case .successor:
      emit(resolved(state), .store(.successor), nil)
    case .successorFence:
      fence(
        isLeftOut: change == .successorWithoutFence,
        then: change == .successorWithoutScan ? .tombstone : .successorScan)
    case .successorScan:
      scan(found: .successorPutsBack)
    case .successorPutsBack:
      put(.state, ModelWord.ready(generation: generation), release: true, then: .successorBucket)
    case .successorBucket:
      put(.bucket, 1, release: true, then: .mark)
    case .finished:
      break
    }
  }

  /// What a store does with the entry that its predecessor left: the index is all that it knows.
  private func resolved(_ state: ModelState) -> ModelState {
    var next = state
    let generation = ModelWord.generation(state[.state])
    switch ModelWord.kind(state[.state]) {
    case .ready:
      next.store.incarnation = generation
      // The bucket may be missing: the predecessor died before it wrote it.
      next.store.step = .successorBucket
      if generation == incarnations { next.store.step = .finished }
    case .evicting:
      next.store.incarnation = generation
      next.store.step = .successorFence
    case .doomed:
      next.store.incarnation = generation
      next.store.step = .doomFence
    case .empty:
      next.store.incarnation = generation - 1
      next.store.forgets = change == .successorForgetsGenerations
      next.store.step = .word0
    }
    return next
  }
}
