import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import Mobula

/// What drivers and workers say to each other, compared with the bytes in `docs/Wire.md`.
@Suite struct WorkerMessagesTests {
  private static let object = ObjectID(high: 0x0000_0007_0102_0304, low: 0x1112_1314_1516_1718)
  private static let actor = ActorAddress(
    actor: RemoteActorID(high: 1, low: 2), endpoint: .tcp(host: "10.0.0.1", port: 7600), incarnation: 3, job: JobID(7)
  )

  static var all: [GoldenMessage] {
    var list: [GoldenMessage] = []
    let lease = LeaseID(high: 5, low: 6)
    let pushed = PushedTask(task: 7, type: "T", arguments: ByteString([1, 2]), result: object)
    let ends = [
      EndedTask(task: 7, outcome: .stored, took: 1000),
      EndedTask(task: 8, outcome: .inline([1, 2].withUnsafeBytes { InlineObject($0) }), took: 1000),
      EndedTask(task: 9, outcome: .failed([3].withUnsafeBytes { InlineObject($0) }), took: 1000),
    ]
    list.append(.of(WorkerAPI.work.name, "request", WorkLane(lease: lease, resources: ["CPU": 1])))
    list.append(.of(WorkerAPI.work.name, "element", Empty()))
    list.append(.of(WorkerAPI.push.name, "request", WorkPush(lease: lease, tasks: WorkCoding.encode([pushed]))))
    list.append(.of(WorkerAPI.ended.name, "request", WorkEnded(lease: lease, ends: WorkCoding.encode(ends))))
    list.append(.of(WorkerAPI.recall.name, "request", WorkRecall(lease: lease, tasks: [7, 8])))
    list.append(.of(WorkerAPI.recalled.name, "request", WorkRecall(lease: lease, tasks: [8])))
    list.append(.of(WorkerAPI.cancel.name, "request", WorkCancel(lease: lease, tasks: [7], children: true)))
    list += GoldenMessage.of(WorkerAPI.storing, WorkStoring(lease: lease, task: 7), true)
    let call = ActorCall(
      number: 9, actor: actor.actor, target: "t", result: object, substitutions: ["S"],
      arguments: [ByteString([1, 2])])
    list.append(.of(WorkerAPI.call.name, "request", ActorCalling(call: WorkCoding.encode(call))))
    list.append(.of(WorkerAPI.cancelCalls.name, "request", ActorCalls.Numbers(calls: [9])))
    list.append(.of(WorkerAPI.returned.name, "request", ActorReturns(ends: WorkCoding.encode(ends))))
    list += GoldenMessage.of(WorkerAPI.storingCall, ActorCalls.Numbers(calls: [9]), true)
    return list
  }

  @Test func everyMessageIsAsTheDocumentSays() throws {
    try WireDocument.export(Self.all)
    let document = try WireDocument()
    for message in Self.all {
      let problem = document.problem(of: message)
      #expect(problem == nil, "\(problem ?? "")")
    }
  }

  @Test func everyMethodOfWorkersHasItsBytes() throws {
    let document = try WireDocument()
    #expect(document.methods.filter { $0.hasPrefix("worker.") } == Set(Self.all.map(\.method)))
  }
}
