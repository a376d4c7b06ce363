internal import MobulaCore

/// What simulated hosts say to each other, and what it costs.
enum SimulatedMessage {
  // Receiver and source, as in `TransferMessage`.
  case open
  case opened(wantsNews: Bool)
  case offer([Range<Int>])
  /// What is written at once: a chunk that is acknowledged, and one that is asked for.
  case wants(acknowledged: Int?, requested: Int?)
  case cancel(Int)
  case chunk(Int, isDamaged: Bool)
  // Hosts and the head.
  case locate(known: Set<HostID>, failed: Set<HostID>)
  case located([HostID])
  case notLocated(MobulaError)
  case partial
  case sealed
  case gone
  case done

  /// With the headers of the network, but for chunks, whose bytes are many.
  var bytes: Int {
    let headers = 66
    return switch self {
    case .open: headers + 45
    case .opened: headers + 18
    case .offer(let ranges): headers + 5 + 8 * ranges.count
    case .wants(let acknowledged, let requested):
      headers + (acknowledged == nil ? 0 : 9) + (requested == nil ? 0 : 9)
    case .cancel: headers + 9
    case .chunk: 17
    // Frame header, request number, method, and the fields' names in CBOR.
    case .locate(let known, let failed): headers + 120 + 17 * (known.count + failed.count)
    case .located(let sources): headers + 140 + 70 * sources.count
    case .notLocated(let error): headers + 60 + error.message.utf8.count
    case .partial: headers + 100
    case .sealed: headers + 200
    case .gone: headers + 80
    case .done: headers + 20
    }
  }
}
