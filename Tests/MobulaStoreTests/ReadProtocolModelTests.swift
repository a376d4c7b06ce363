import Testing

/// All that can happen between the store and its readers, as far as the models reach; see the article ReadProtocol.
struct ReadProtocolModelTests {
  @Test(arguments: ModelMemory.allCases)
  func twoClientsReadNothingButWhatTheyHavePinned(memory: ModelMemory) {
    expectSafe(ReadProtocolModel(memory, gets: 2, incarnations: 3), "A, B, A in one entry, \(memory)")
  }

  @Test(arguments: ModelMemory.allCases)
  func aDeletedObjectLastsAsLongAsItsPins(memory: ModelMemory) {
    expectSafe(
      ReadProtocolModel(memory, gets: 2, incarnations: 3, deletes: true), "A deleted, B, A, \(memory)")
  }

  @Test(arguments: ModelMemory.allCases)
  func theNextStoreResolvesWhatADeadOneLeft(memory: ModelMemory) {
    expectSafe(ReadProtocolModel(memory, gets: 2, deaths: 1), "A, B, a store dies, \(memory)")
    expectSafe(
      ReadProtocolModel(memory, deletes: true, deaths: 2), "A deleted, B, two stores die, \(memory)")
  }

  @Test(arguments: ModelMemory.allCases)
  func thePinsOfADeadClientFall(memory: ModelMemory) {
    expectSafe(ReadProtocolModel(memory, gets: 2, clientsDie: true), "A, B, clients die, \(memory)")
  }

  /// Each mistake is found from a certain memory on, and does no harm in stricter ones: the first three are why
  /// acquire and release are not enough on x86.
  @Test(
    arguments: [
      (.clientWithoutFence, .totalStoreOrder), (.storeWithoutFence, .totalStoreOrder),
      (.acquireReleaseInsteadOfFences, .totalStoreOrder), (.withoutRecheck, .sequential),
      (.withoutGeneration, .sequential), (.retireWithoutScan, .sequential), (.insertNotReleased, .partialStoreOrder),
      (.unpinNotReleased, .weak), (.stateNotAcquired, .weak), (.doomedFreedWithoutScan, .sequential),
      (.freedBeforeEmpty, .sequential), (.pinsFallWithSocket, .sequential), (.successorWithoutScan, .sequential),
      (.successorForgetsGenerations, .sequential),
    ] as [(ModelChange, ModelMemory)])
  func aMistakeIsFound(change: ModelChange, first: ModelMemory) {
    let order = ModelMemory.allCases
    for (index, memory) in order.enumerated() {
      let result = model(memory, change).search()
      if index < order.firstIndex(of: first)! {
        #expect(result.violation == nil && !result.isTruncated, "\(change) already breaks \(memory): \(result.trace)")
      } else {
        #expect(result.violation != nil, "\(change) was not found in \(memory), \(result.states) states")
      }
      if memory == first, let violation = result.violation {
        print("read protocol: \(change) breaks \(memory): \(violation) after \(result.states) states:")
        print("  " + result.trace.map(\.description).joined(separator: "; "))
      }
    }
  }

  /// Orders that the model can do without. The code keeps them: see the article.
  @Test(
    arguments: [
      .recheckNotAcquired, .putBackNotReleased, .retireNotReleased, .bucketRelaxed, .doomedScannedWithoutFence,
      .successorWithoutFence,
    ] as [ModelChange])
  func anOrderIsNotNeeded(change: ModelChange) {
    expectSafe(model(.weak, change), "\(change), one client, weak")
    expectSafe(
      ReadProtocolModel(.weak, change, deletes: true, deaths: 1), "\(change), two clients, a deletion, a death, weak")
  }

  private func model(_ memory: ModelMemory, _ change: ModelChange) -> ReadProtocolModel {
    switch change {
    case .doomedFreedWithoutScan, .doomedScannedWithoutFence:
      ReadProtocolModel(memory, change, clients: 1, gets: 2, deletes: true)
    case .freedBeforeEmpty, .successorWithoutScan, .successorForgetsGenerations, .successorWithoutFence:
      ReadProtocolModel(memory, change, clients: 1, gets: 2, deaths: 1)
    default: ReadProtocolModel(memory, change, clients: 1, gets: 2, incarnations: 3)
    }
  }

  private func expectSafe(_ model: ReadProtocolModel, _ name: String) {
    let result = model.search()
    print("read protocol: \(name): \(result.states) states, \(result.steps) steps")
    #expect(result.violation == nil, "\(name): \(result.trace)")
    #expect(!result.isTruncated, "\(name)")
    #expect(result.stuck == 0, "\(name): a program cannot go on")
    #expect(result.pinnedReads > 0 && result.endings > 0, "\(name): nobody read, or nothing came to an end")
  }
}
