internal import MobulaCore
internal import Synchronization

// The shell's half of the events: ask under the lock, make and drop memory outside of it.
extension Store {
  /// Asks for memory by `event`, makes the segment if it takes a new one, and
  /// `install`s the result in the same step in which others can see it.
  func allocate<Result: Sendable>(
    _ kind: SegmentMemory.Kind,
    _ event: (inout StoreStateMachine) throws(MobulaError) -> StoreStateMachine.Allocation,
    install: (inout State, StoreStateMachine.Allocation, SegmentMemory) -> Result
  ) throws(MobulaError) -> Result {
    let (allocation, present, dropped) = try state.withLock { state throws(MobulaError) in
      let allocation = try event(&state.machine)
      let dropped = state.remove(allocation.freed)
      let present =
        allocation.isNewSegment
        ? nil : install(&state, allocation, state.segments[allocation.region.segment]!)
      return (allocation, present, dropped)
    }
    // What was evicted is given back to the system before more is taken.
    _ = consume dropped
    if !allocation.evicted.isEmpty { onEvict(allocation.evicted) }
    if let present { return present }

    let memory: SegmentMemory
    do throws(MobulaError) {
      memory = try SegmentMemory(name: name, size: allocation.segmentSize, kind: kind)
    } catch {
      change { state in ((), state.machine.segmentFailed(allocation)) }
      throw error
    }
    let made: Result? = change { state in
      guard state.machine.segmentMade(allocation) else { return (nil, state.machine.segmentFailed(allocation)) }
      state.segments[allocation.region.segment] = memory
      return (install(&state, allocation, memory), .init())
    }
    guard let made else {
      throw MobulaError(
        .cancelled, "The object or its maker went away while memory was reserved: make the object again.")
    }
    return made
  }

  /// Lets an event happen, and drops what it freed after the lock: to unmap a big segment takes a while.
  @discardableResult
  func change<Result: Sendable>(
    _ body: (inout State) -> (Result, StoreStateMachine.Freed)
  ) -> Result {
    let (result, dropped) = state.withLock { state in
      let (result, freed) = body(&state)
      return (result, state.remove(freed))
    }
    _ = consume dropped
    return result
  }

  func unpin(_ entry: EntryID) {
    change { state in ((), state.machine.unpin(entry)) }
  }

  func completeReceive(_ entry: EntryID) -> Bool {
    state.withLock { $0.machine.completeReceive(entry) }
  }

  func abandonReceive(_ entry: EntryID) {
    change { state in ((), state.machine.abandonReceive(entry)) }
  }

  /// The descriptor that a ticket is for; `nil` for a ticket that is no good, or when the segment is gone.
  func redeem(_ ticket: DescriptorTicket) -> SharedDescriptor? {
    state.withLock { state in
      guard let grant = state.tickets.redeem(ticket, now: .now), let memory = state.segments[grant.segment] else {
        return nil
      }
      return grant.writable ? memory.writable : memory.readOnly
    }
  }
}

extension Store.State {
  /// A placement with a ticket of its own: cheap, where to keep track of what each client has mapped is not.
  mutating func placement(_ region: Region, size: Int, writable: Bool) -> Placement {
    var generator = SystemRandomNumberGenerator()
    let ticket = tickets.issue(
      TicketBook.Grant(segment: region.segment, writable: writable), now: .now, using: &generator)
    return Placement(
      segment: region.segment, segmentSize: size, offset: region.offset, size: region.size, writable: writable,
      ticket: ticket)
  }

  /// Takes what is freed out of the tables, and returns it for the caller to drop.
  mutating func remove(_ freed: StoreStateMachine.Freed) -> [any AnyObject & Sendable] {
    var dropped: [any AnyObject & Sendable] = []
    for entry in freed.entries { if let replica = replicas.removeValue(forKey: entry) { dropped.append(replica) } }
    for id in freed.segments { if let memory = segments.removeValue(forKey: id) { dropped.append(memory) } }
    return dropped
  }
}
