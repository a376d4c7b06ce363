import Glibc
import MobulaCore
import MobulaStore
import Synchronization

func put(_ content: Content, _ client: StoreClient, patience: Duration = .seconds(60)) throws {
  let draft = try client.draft(content.object, size: content.size, patience: patience)
  content.fill(draft.memory)
  try draft.seal(holds: true)
}

/// Puts objects, and tells of each once it is announced: as a line, or as progress, which others follow.
func makeObjects(_ arguments: Arguments) throws {
  let stopping = Flag()
  commands { if $0.first == "stop" { stopping.raise() } }
  let client = try arguments.client()
  let progress = Progress(arguments["progress"])
  let (slot, count, pause) = (arguments.number("slot"), arguments.number("count", .max), arguments.number("pause"))
  let (prints, confirms) = (arguments.number("prints") != 0, arguments.number("confirms"))
  var number = 0
  var refused = 0
  while number < count, !stopping.isUp {
    let content = Content(arguments.kind, slot: slot, number: number)
    do {
      try put(content, client, patience: .seconds(arguments.number("patience", 60)))
    } catch let error as MobulaError where error.code == .full && arguments.number("mayBeFull") != 0 {
      refused += 1
      usleep(1000)
      continue
    }
    if confirms > 0 && number % confirms == confirms - 1 || confirms > 0 && number == count - 1 {
      try client.confirm(content.object)
      progress[slot] = number + 1
    } else if confirms == 0 {
      progress[slot] = number + 1
    }
    if prints { say("\(content.object)") }
    number += 1
    if pause > 0 { usleep(UInt32(pause)) }
  }
  say("done \(number) \(refused)")
  while true { sleep(1) }
}

final class Flag: Sendable {
  private let value = Atomic(false)
  var isUp: Bool { value.load(ordering: .relaxed) }
  func raise() { value.store(true, ordering: .relaxed) }
}

final class Held {
  let content: Content
  let pinned: PinnedBytes

  init(_ content: Content, _ pinned: consuming PinnedBytes) {
    self.content = content
    self.pinned = pinned
  }

  func check() {
    if let fault = content.fault(in: pinned.bytes) { fail("WRONG object \(content.object): \(fault)") }
  }
}

/// Reads objects that makers told of, at random, and keeps some pinned for a while; each is checked when it is
/// pinned and before it is let go.
func readObjects(_ arguments: Arguments) throws {
  let stopping = Flag()
  let answers = Mutex<[String]>([])
  commands { line in
    if line.first == "stop" { stopping.raise() } else { answers.withLock { $0.append(line.joined(separator: " ")) } }
  }
  let client = try arguments.client()
  let progress = Progress(arguments["progress"])
  let slots = arguments["slots"].split(separator: ",").compactMap { Int($0) }
  if arguments.number("all") != 0 {
    var count = 0
    for slot in slots {
      for number in 0..<progress[slot] {
        let content = Content(arguments.kind, slot: slot, number: number)
        var tries = 0
        while true {
          do {
            let held = try pin(content, client)
            held.check()
            count += 1
            break
          } catch let error as MobulaError where error.code == .unavailable && tries < 20 {
            tries += 1
            say("want \(content.object)")
            while answers.withLock({ $0.isEmpty }) { usleep(200) }
            let answer = answers.withLock { $0.removeFirst() }
            if answer != "ok" { fail("restoring \(content.object): \(answer)") }
          }
        }
      }
    }
    say("read \(count)")
    return
  }
  let (window, isStrict) = (arguments.number("window", 200), arguments.number("strict") != 0)
  var random = Random(seed: UInt64(arguments.number("seed")))
  var held: [Held] = []
  var (reads, missing, onDisk) = (0, 0, 0)
  while !stopping.isUp {
    let slot = slots.randomElement(using: &random)!
    let last = progress[slot]
    guard last > 0 else {
      usleep(1000)
      continue
    }
    let content = Content(
      slot == 0 ? .mixed : arguments.kind, slot: slot, number: .random(in: max(0, last - window)..<last, using: &random)
    )
    do {
      let one = try pin(content, client)
      one.check()
      reads += 1
      held.append(one)
    } catch let error as MobulaError where error.code == .notFound && !isStrict && !"\(error)".contains("Segment") {
      // Deleted. That the segment of what is pinned were gone would be a fault.
      missing += 1
    } catch let error as MobulaError where error.code == .unavailable && "\(error)".contains("disk") {
      onDisk += 1
    }
    while held.count > arguments.number("holds", 32) {
      let one = held.remove(at: .random(in: 0..<held.count, using: &random))
      one.check()
    }
    if arguments.number("pause") > 0 { usleep(UInt32(arguments.number("pause"))) }
  }
  for one in held { one.check() }
  held = []
  say("stopped \(reads) \(missing) \(onDisk)")
}

func pin(_ content: Content, _ client: StoreClient) throws -> Held {
  if let pinned = try client.pin(content.object) { return Held(content, pinned) }
  return Held(content, try client.pinSlowly(content.object))
}

/// Does what it is told, one line after the other: `put`, `pin`, `check`, `drop`, each with a kind, a slot, a number.
func hold(_ arguments: Arguments) throws {
  let client = try arguments.client()
  var held: [ObjectID: Held] = [:]
  say("ready \(client.id)")
  readCommands { line in
    guard line.count == 4, let kind = UInt64(line[1]), let slot = Int(line[2]), let number = Int(line[3]) else {
      return say("what?")
    }
    let content = Content(Content.Kind(rawValue: kind) ?? .small, slot: slot, number: number)
    do {
      switch line[0] {
      case "put":
        try put(content, client)
        try client.confirm(content.object)
      case "pin":
        held[content.object] = try pin(content, client)
        held[content.object]!.check()
      case "check": held[content.object]!.check()
      case "drop": held[content.object] = nil
      default: return say("what?")
      }
      say("ok")
    } catch {
      say("error \(error)")
    }
  }
}

/// Writes to what it may read only, which must end it.
func scribble(_ arguments: Arguments) throws {
  commands { _ in }
  let client = try arguments.client()
  let held = try pin(Content(.small, slot: 1, number: 0), client)
  say("ready")
  UnsafeMutablePointer(mutating: held.pinned.bytes.baseAddress!.assumingMemoryBound(to: UInt8.self)).pointee = 1
  say("FAILED wrote")
  withExtendedLifetime(held) {}
}

/// Puts an object, then writes random words all over its page of shared memory, until it is ended.
func vandalize(_ arguments: Arguments) throws {
  commands { _ in }
  let client = try arguments.client()
  try put(Content(.small, slot: arguments.number("slot"), number: 0), client)
  guard let maps = fopen("/proc/self/maps", "r") else { fail("no maps") }
  var line = [CChar](repeating: 0, count: 1024)
  var page: UnsafeMutableBufferPointer<UInt64>?
  while fgets(&line, 1024, maps) != nil {
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    guard text.contains("mobula-page"), let range = text.split(separator: " ").first?.split(separator: "-"),
      let start = UInt(range[0], radix: 16), let end = UInt(range[1], radix: 16)
    else { continue }
    page = UnsafeMutableBufferPointer(start: UnsafeMutablePointer(bitPattern: start), count: Int(end - start) / 8)
  }
  fclose(maps)
  guard let page else { fail("no page") }
  say("ready")
  var random = Random(seed: UInt64(arguments.number("seed")))
  while true {
    for _ in 0..<1000 {
      // The header's words as often as all others.
      let at =
        Bool.random(using: &random)
        ? Int.random(in: 0..<56, using: &random) : .random(in: 0..<page.count, using: &random)
      switch UInt8.random(in: 0..<5, using: &random) {
      case 0: page[at] = random.next()
      case 1: page[at] = UInt64.random(in: 0..<4096, using: &random)
      case 2: page[at] = UInt64.random(in: 0..<4096, using: &random) * 65_536 | UInt64.random(in: 0..<4, using: &random)
      case 3: page[at] = UInt64.random(in: 1..<4, using: &random)
      default: page[at] &+= 1
      }
    }
    usleep(200)
  }
}

/// Attaches, puts one object, and is gone.
func visit(_ arguments: Arguments) throws {
  let client = try arguments.client()
  try put(Content(.small, slot: arguments.number("slot"), number: arguments.number("number")), client)
  _exit(0)
}
