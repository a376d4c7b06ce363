import ArgumentParser
import Mobula
import SpeechModel

struct MemoryCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memory", abstract: "Show what so many actors with one model on one host have for themselves.")

  @OptionGroup var model: ModelOptions

  @Option(help: "How many actors.")
  var actors = 10

  func validate() throws {
    guard 1...1000 ~= actors else { throw ValidationError("--actors is from 1 to 1000.") }
    _ = try model.options(.pack)
  }

  @concurrent func run() async throws {
    let cluster = try await model.connect()
    do {
      let prepared = try await model.prepare(on: cluster)
      guard let host = try await cluster.status().hosts.filter(\.connected).min(by: { $0.name < $1.name }) else {
        throw noHosts
      }
      var all: [LoadAndRunModel] = []
      for _ in 0..<actors {
        all.append(
          try await cluster.spawn(
            LoadAndRunModel.self, with: .init(model: prepared.blob, host: host.name.text),
            model.options(.host(host.host))))
      }
      var added = 0
      for actor in all {
        let memory = try await actor.memory()
        added += memory[1].own - memory[0].own
      }
      print("The model: \(ByteCount(prepared.bytes)); \(actors) actors on \(host.name)")
      print(
        "With the model the actors' own memory grew by \(ByteCount(max(0, added))) together: \(short(100 * Double(added) / Double(prepared.bytes))) % of the model"
      )
    } catch {
      await cluster.close()
      throw error
    }
    await cluster.close()
  }
}
