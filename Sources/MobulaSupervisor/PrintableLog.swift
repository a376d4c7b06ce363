import Logging
import MobulaCore
import Synchronization

/// Writes a log as another handler does, with what a terminal would act on escaped, so that an entry is one line.
struct PrintableLog: LogHandler {
  private var handler: StreamLogHandler

  init(_ handler: StreamLogHandler) { self.handler = handler }

  var metadata: Logger.Metadata {
    get { handler.metadata }
    set { handler.metadata = newValue.mapValues(Self.printable) }
  }

  var logLevel: Logger.Level {
    get { handler.logLevel }
    set { handler.logLevel = newValue }
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { handler[metadataKey: key] }
    set { handler[metadataKey: key] = newValue.map(Self.printable) }
  }

  func log(event: LogEvent) {
    if Log.isOver.load(ordering: .relaxed) { return }
    var event = event
    event.message = Logger.Message(stringLiteral: event.message.description.printable)
    event.metadata = event.metadata?.mapValues(Self.printable)
    handler.log(event: event)
  }

  private static func printable(_ value: Logger.Metadata.Value) -> Logger.Metadata.Value {
    .string(value.description.printable)
  }
}
