import FoundationEssentials
import Glibc
import MobulaCore
import MobulaStore
import Synchronization

/// A process of the store's tests: the store itself, or one of its clients, by the first argument. The others are
/// `name=value`. Commands come as lines on standard input, at whose end the process ends, and answers go to
/// standard output. It uses what is public, so that it builds without `-enable-testing`.
@main
enum StoreProcess {
  static func main() {
    let arguments = Arguments(CommandLine.arguments.dropFirst())
    do {
      switch arguments.role {
      case "store": try StoreRole(arguments).run()
      case "maker": try makeObjects(arguments)
      case "reader": try readObjects(arguments)
      case "holder": try hold(arguments)
      case "scribbler": try scribble(arguments)
      case "vandal": try vandalize(arguments)
      case "visitor": try visit(arguments)
      default: fail("no role \(arguments.role)")
      }
    } catch {
      fail("\(error)")
    }
  }
}

struct Arguments {
  let role: String
  private let values: [String: String]

  init(_ arguments: ArraySlice<String>) {
    role = arguments.first ?? ""
    values = Dictionary(
      arguments.dropFirst().compactMap { argument in
        argument.firstIndex(of: "=").map { (String(argument[..<$0]), String(argument[argument.index(after: $0)...])) }
      }, uniquingKeysWith: { $1 })
  }

  subscript(_ name: String) -> String { values[name] ?? "" }
  func number(_ name: String, _ unless: Int = 0) -> Int { values[name].flatMap { Int($0) } ?? unless }

  func client() throws -> StoreClient {
    let ticket = try JSONDecoder().decode(DescriptorTicket.self, from: Data(self["ticket"].utf8))
    return try StoreClient(socket: self["socket"], ticket: ticket, name: role)
  }

  var kind: Content.Kind { Content.Kind(rawValue: UInt64(number("kind", 2))) ?? .mixed }
}

func say(_ line: String) {
  let bytes = Array((line + "\n").utf8)
  var done = 0
  while done < bytes.count {
    let count = bytes[done...].withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    if count <= 0 { _exit(1) }
    done += count
  }
}

func fail(_ reason: String) -> Never {
  say("FAILED \(reason)")
  _exit(9)
}

/// Calls `body` with every line of standard input, and ends the process with it.
func commands(_ body: @escaping @Sendable ([Substring]) -> Void) {
  detachThread(named: "commands") { readCommands(body) }
}

func readCommands(_ body: ([Substring]) -> Void) -> Never {
  while let line = readLine() { body(line.split(separator: " ")) }
  _exit(0)
}

/// How many objects each maker has announced, in a file that all processes share.
struct Progress {
  private let file: CInt

  init(_ path: String) { file = open(path, O_RDWR | O_CLOEXEC) }

  subscript(_ slot: Int) -> Int {
    get {
      var value = 0
      return pread(file, &value, 8, slot * 8) == 8 ? value : 0
    }
    nonmutating set {
      var value = newValue
      _ = pwrite(file, &value, 8, slot * 8)
    }
  }
}
