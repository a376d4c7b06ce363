import Distributed
import Glibc
import Mobula
import MobulaCore

// What goes wrong in workers, and what they have of their environment.

/// Ends its worker as a precondition that doesn't hold does.
struct Trap: RemoteTask {
  var words: String
  func run(in context: TaskContext) async throws -> Int {
    let text = (0..<40).map { "line \($0)\n" }.joined() + "Fatal error: \(words)\n"
    _ = write(2, text, text.utf8.count)
    abort()
  }
}

struct Leave: RemoteTask {
  func run(in context: TaskContext) async throws -> Int { exit(42) }
}

distributed actor Trapping: RemoteActor {
  typealias ActorSystem = Cluster

  init(configuration: Bool, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    if configuration { fatalError("not even made") }
  }

  distributed func trap() -> Int { fatalError("asked to") }
}

func traps(_ cluster: Cluster) async throws {
  let trap = try await failure { _ = try await cluster.submit(Trap(words: "on purpose"), .resources(cpu: 0)).value }
  try check(trap.code == .workerLost, "a task that traps is lost with its worker: \(trap)")
  try check(trap.message.contains("signal 6"), "the signal is named: \(trap)")
  try check(trap.message.contains("Fatal error: on purpose"), "what it said is shown: \(trap)")
  let left = try await failure { _ = try await cluster.submit(Leave(), .resources(cpu: 0)).value }
  try check(left.message.contains("exit status 42"), "the status is named: \(left)")
  let actor = try await cluster.spawn(Trapping.self, with: false, .resources(cpu: 0))
  let asked = try await failure { _ = try await actor.trap() }
  try check(asked.message.contains("signal") && asked.message.contains("asked to"), "an actor's trap, too: \(asked)")
  let made = try await failure { _ = try await cluster.spawn(Trapping.self, with: true, .resources(cpu: 0)) }
  try check(made.message.contains("not even made"), "and one at its start: \(made)")
}

/// The variables of this worker, and those that it finds of its pod and of the head.
struct Variables: RemoteTask {
  func run(in context: TaskContext) async throws -> [String] {
    var found = currentEnvironment().map { "\($0.key)=\($0.value)" }
    // What a process was started with, of this worker's parent and of its siblings.
    guard let folder = opendir("/proc") else { throw Failure("/proc can't be read") }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      guard Int(name) != nil, let command = text("/proc/\(name)/cmdline"), command.contains(context.directory) else {
        continue
      }
      found += (text("/proc/\(name)/environ") ?? "").split(separator: "\0").map(String.init)
    }
    return found
  }

  private func text(_ path: String) -> String? {
    guard let file = fopen(path, "re") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}

extension TaskContext {
  /// The directory of this worker's host, which the commands of its processes name.
  fileprivate var directory: String { cluster.options.directory }
}

func environment(_ cluster: Cluster) async throws {
  var options = ClusterOptions()
  options.workerEnvironment = ["APP_MODE": "test", "LANG": "C.UTF-8"]
  let other = try await Cluster.connect(options)
  let variables = try await other.submit(Variables(), .resources(cpu: 0)).value
  await other.close()
  print(variables.joined(separator: "\n"))
  options.workerEnvironment = ["A=B": "c"]
  let wrong = try await failure { _ = try await Cluster.connect(options) }
  try check(wrong.code == .invalidArgument, "a name that is none: \(wrong)")
}

/// More than the store has room for, all of which is held, read while the most of it is mapped.
func full(_ cluster: Cluster) async throws {
  let size = 20_000_000
  var references: [ObjectRef<Blob>] = []
  for number in 0..<5 {
    references.append(try await cluster.put(Blob([UInt8](repeating: UInt8(number + 1), count: size))))
  }
  var blobs: [Blob] = []
  for (number, reference) in references.enumerated() {
    let blob = try await reference.value
    try check(
      blob.withUnsafeBytes { bytes in bytes.count == size && bytes.allSatisfy { $0 == UInt8(number + 1) } },
      "object \(number) of a store without room")
    blobs.append(blob)
  }
  try check(blobs.count == 5, "all are there at once")
}
